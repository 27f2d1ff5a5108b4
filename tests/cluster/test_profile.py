"""What a profile may say, beyond what the script tests ask of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hpcft.cluster.profile import Profile


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "WANDB_KEY", "hf_token", "MY_TOKEN_2", "PASSPHRASE", "S3_CREDENTIALS"]
)
@pytest.mark.parametrize("key", ["env", "export"])
def test_s3_a_secret_is_neither_set_nor_handed_on(key: str, name: str) -> None:
    with pytest.raises(ValidationError, match="looks like a secret"):
        Profile.model_validate({"name": "site", key: {name: "x"} if key == "env" else [name]})


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("setup", ["export WANDB_API_KEY=0123"]),
        ("setup", ["module load x; HF_TOKEN='abc' hf auth whoami"]),
        ("setup", ["wandb login 0123456789abcdef0123456789abcdef01234567"]),
        ("container", ["apptainer", "exec", "--env", "HF_TOKEN=abc", "image.sif"]),
        ("container", ["apptainer", "exec", "--env=HF_TOKEN=abc", "image.sif"]),
        ("srun", ["--container-env=HF_TOKEN=abc"]),
    ],
)
def test_s3_a_line_of_the_script_carries_no_secret(key: str, lines: list[str]) -> None:
    with pytest.raises(ValidationError, match="looks like a secret"):
        Profile.model_validate({"name": "site", key: lines})


@pytest.mark.parametrize("line", ['export HF_TOKEN="$(cat ~/.token)"', "export TOKENIZERS_PARALLELISM=false", "KEY="])
def test_a_line_that_gets_a_secret_from_elsewhere_is_taken(line: str) -> None:
    assert Profile.model_validate({"name": "site", "setup": [line]}).setup == [line]


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "SECRETS_DIR", "MONKEY", "KEYBOARD", "TMPDIR"]
)
def test_a_name_that_only_sounds_like_a_secret_is_taken(name: str) -> None:
    assert Profile.model_validate({"name": "site", "env": {name: "x"}, "export": [name]}).export == [name]


@pytest.mark.parametrize("option", ["outpu", "wra", "exp", "job-n", "test-only", "export-file", "quiet"])
def test_our_own_options_cannot_be_set_by_an_abbreviation_either(option: str) -> None:
    with pytest.raises(ValidationError, match="is set from the job"):
        Profile.model_validate({"name": "site", "sbatch": {option: "x"}})


@pytest.mark.parametrize("option", ["exclude", "exclusive", "time-min", "mem-per-cpu", "gres", "mail-type"])
def test_other_options_are_handed_on(option: str) -> None:
    assert Profile.model_validate({"name": "site", "sbatch": {option: "x"}}).sbatch == {option: "x"}


@pytest.mark.parametrize("key", ["modules", "setup", "container", "sbatch"])
def test_what_the_local_scheduler_would_ignore_is_refused(key: str) -> None:
    value = {"exclude": "node7"} if key == "sbatch" else ["x"]
    with pytest.raises(ValidationError, match=f"{key} belongs to a batch script"):
        Profile.model_validate({"name": "here", "scheduler": "local", key: value})

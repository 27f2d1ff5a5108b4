"""The program that runs in llmcompressor's environment: alone, and right about sizes and layers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_models import ENCODERS, WRITERS, config

from hpcft.models import gptq_program

PROGRAM = Path(gptq_program.__file__)


def test_it_imports_nothing_of_hpcft_and_nothing_heavy_before_it_is_asked() -> None:
    tree = ast.parse(PROGRAM.read_text())
    everywhere = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    everywhere |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [name for name in everywhere if name.startswith("hpcft")]
    at_once = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in at_once if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in at_once if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names}


def test_code_of_a_model_is_never_run() -> None:
    text = PROGRAM.read_text()
    assert '"trust_remote_code": False' in text
    assert "trust_remote_code=True" not in text


@pytest.mark.parametrize(
    ("widths", "bits", "size"),
    [
        ([4096, 11008], 4, 128),
        ([896, 4864], 4, 128),
        ([64, 192], 4, 64),
        ([32, 64], 4, 32),
        ([128, 100], 4, None),
        ([4096, 11008], 8, None),
    ],
)
def test_a_scale_is_shared_by_the_largest_group_that_divides_every_row(
    widths: list[int], bits: int, size: int | None
) -> None:
    assert gptq_program.group_size(widths, bits) == size


@pytest.mark.parametrize("family", sorted({*WRITERS} - {"gpt2"}))
def test_the_head_of_every_family_stays_as_it_is(family: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config(family))
    inside, outside = gptq_program.layers(model)
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    assert outside == [head]
    assert len(inside) >= 8


@pytest.mark.parametrize("family", ENCODERS)
def test_so_does_that_of_a_classifier(family: str) -> None:
    from transformers import AutoModelForSequenceClassification

    inside, outside = gptq_program.layers(AutoModelForSequenceClassification.from_config(config(family)))
    assert outside
    assert not [name for name in inside if name.startswith("classifier")]


def test_a_model_without_layers_that_it_knows_is_refused_in_words() -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(gptq_program.Refused, match="GPT2LMHeadModel has no linear layers"):
        gptq_program.layers(AutoModelForCausalLM.from_config(config("gpt2")))


def test_what_goes_wrong_there_is_an_answer_and_not_only_a_traceback(tmp_path: Path) -> None:
    """As here, where llmcompressor is not installed."""
    (tmp_path / "request.json").write_text("{}")
    answer = tmp_path / "answer.json"
    command = [sys.executable, "-I", str(PROGRAM), str(tmp_path / "request.json"), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(answer.read_text())["error"].startswith("ModuleNotFoundError: No module named 'llmcompressor'")
    assert "Traceback" in done.stderr

"""The model that the package makes itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.data.e2e import make_rows
from hpcft.models import quickstart
from hpcft.models.quickstart import build_model, cache_folder, ensure_quickstart


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few venues to draw from: making thousands takes longer than the steps of these tests."""
    monkeypatch.setattr(quickstart, "_VENUES", 64)


def test_it_loads_like_any_local_model_and_generates(tmp_path: Path) -> None:
    build_model(tmp_path, steps=0, hidden=64, layers=2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.model_type == "llama"
    assert model.config.vocab_size >= len(tokenizer)
    assert model.config.num_key_value_heads < model.config.num_attention_heads, "grouped heads"
    batch = tokenizer("name[The Ivy Mill]", return_tensors="pt")
    assert batch["input_ids"][0, 0] == tokenizer.bos_token_id
    out = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert out.shape[1] > batch["input_ids"].shape[1]


def test_it_is_safetensors_and_nothing_pickled(tmp_path: Path) -> None:
    build_model(tmp_path, steps=0, hidden=64, layers=2)
    names = {p.name for p in tmp_path.iterdir()}
    assert "model.safetensors" in names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]


def test_all_linear_layers_suit_4_bit_kernels(tmp_path: Path) -> None:
    build_model(tmp_path, steps=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    sizes = {
        size
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
        for size in (module.in_features, module.out_features)
    }
    assert all(size % 32 == 0 for size in sizes), sizes
    assert 500_000 < sum(p.numel() for p in model.parameters()) < 4_000_000


def test_any_text_comes_back_from_its_tokens(tmp_path: Path) -> None:
    build_model(tmp_path, steps=0, hidden=64, layers=2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Plain.", "less than £20", "日本 🍣\n\t x", make_rows(1, 9)[0].mr):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_the_same_steps_make_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_model(tmp_path / name, steps=2, hidden=64, layers=2)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()


def test_making_it_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(tmp_path, steps=1, hidden=64, layers=2)
    assert torch.equal(torch.rand(3), expected)


def test_training_lowers_the_loss_of_the_related_task(tmp_path: Path) -> None:
    def loss(steps: int) -> float:
        folder = tmp_path / str(steps)
        build_model(folder, steps=steps, hidden=64, layers=2)
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        batch = tokenizer("The Ivy Mill is a pub.", return_tensors="pt")
        with torch.no_grad():
            return float(model(**batch, labels=batch["input_ids"]).loss)

    assert loss(25) < loss(0) - 1


def test_what_it_learns_first_is_not_what_is_tuned_later() -> None:
    asked = [quickstart._listing(venue)[0] for venue in quickstart.make_venues(50, 1)]
    assert not any("###" in text for text in asked)


def test_a_second_call_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_quickstart(tmp_path, steps=1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(quickstart, "build_model", refuse)
    assert ensure_quickstart(tmp_path, steps=1) == folder
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_a_making_that_breaks_off_leaves_nothing_that_could_be_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_model

    def broken(folder: Path, **options: int) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(quickstart, "build_model", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        ensure_quickstart(tmp_path, steps=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(quickstart, "build_model", real)
    assert (ensure_quickstart(tmp_path, steps=1) / "model.safetensors").is_file()


def test_two_processes_at_once_end_with_one_whole_model(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from hpcft.models.quickstart import ensure_quickstart; "
    code += "ensure_quickstart(Path(sys.argv[1]), steps=1)"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
    AutoModelForCausalLM.from_pretrained(ensure_quickstart(tmp_path, steps=1))


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    folder = ensure_quickstart(tmp_path / "cache", steps=1)
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HPCFT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "hpcft"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "hpcft"
    monkeypatch.setenv("HPCFT_CACHE", os.fspath(tmp_path / "y"))
    assert cache_folder() == tmp_path / "y"

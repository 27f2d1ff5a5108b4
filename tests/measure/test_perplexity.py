"""Perplexity, whatever stands in front of the rows."""

from __future__ import annotations

import math
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from hpcft.data.collate import Collator
from hpcft.data.encode import IGNORED
from hpcft.measure.perplexity import perplexity

ROWS = [
    {"input_ids": list(range(3, 3 + length)), "labels": [IGNORED] * 4 + list(range(7, 3 + length))}
    for length in (9, 12, 7)
]


@pytest.mark.parametrize(
    "adapter",
    [
        None,
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
        peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=8),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    ],
    ids=["base", "prompt-tuning", "p-tuning", "prefix-tuning"],
)
def test_perplexity_is_that_of_the_models_own_loss(adapter: peft.PeftConfig | None, tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    if adapter is not None:
        model = peft.get_peft_model(model, adapter)
    model.eval()
    collate = Collator(0)
    with torch.no_grad():
        loss = float(model(**collate(ROWS)).loss)
    for batch_size in (1, 3):
        assert perplexity(model, ROWS, collate, batch_size=batch_size) == pytest.approx(math.exp(loss), rel=1e-4)

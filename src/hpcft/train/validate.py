"""Validation by generation: the model answers the validation inputs, greedily, and the answers are scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hpcft.data.encode import encode_prompt, pad_left
from hpcft.data.prompts import Prompt
from hpcft.measure.scores import generation_scores
from hpcft.runs.files import write_atomic
from hpcft.train.ranks import Rank, from_all, from_first

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hpcft.data.split import Example


@dataclass
class GenerationValidator:
    """Generates for each validation input once and scores against all its references.

    The inputs are divided over the ranks. Every rank runs the same number of batches, since with ZeRO-3 each
    forward gathers weights from all of them.

    Attributes:
        examples: distinct inputs with their references.
        max_new_tokens: longest answer.
        max_length: tokens that prompt and target had in training; the prompt is cut the same way.
        predictions: of the last call, in the order of `examples`; on every rank.
        provenance: library versions and settings of the scores.
    """

    examples: Sequence[Example]
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    rank: Rank
    batch_size: int
    max_new_tokens: int
    max_length: int
    synced: bool
    predictions: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __call__(self, model: Any) -> dict[str, float]:
        """Generate and score.

        Returns:
            `validation/bleu` … on 0 to 1, on every rank, and `validation/f1_score`, which for generation is the
            F1 of ROUGE-L.
        """
        self.predictions = self._generate(model)
        scores: dict[str, float] = {}
        if self.rank.is_first:
            result = generation_scores(self.predictions, [list(e.references) for e in self.examples])
            self.provenance = dict(result.provenance)
            scores = {f"validation/{name}": float(value) for name, value in result.scores.items()}
            scores["validation/f1_score"] = scores["validation/rougeL"]
        return from_first(scores)

    def write_predictions(self, path: Path) -> None:
        """Keep inputs, references and the last predictions, one JSON object a line."""
        lines = [
            json.dumps({"input": e.source, "references": list(e.references), "prediction": p}, ensure_ascii=False)
            for e, p in zip(self.examples, self.predictions, strict=True)
        ]
        write_atomic(path, "".join(line + "\n" for line in lines))

    @torch.no_grad()
    def _generate(self, model: Any) -> list[str]:
        world = self.rank.world_size
        mine = list(range(self.rank.rank, len(self.examples), world))
        share = -(-len(self.examples) // world)
        # A rank with fewer inputs answers its last one again, and the answer is dropped.
        padded = mine + [mine[-1] if mine else 0] * (share - len(mine))
        encoded = {
            i: encode_prompt(self.tokenizer, self.prompt, self.examples[i].source, self.max_length) for i in set(padded)
        }
        padded.sort(key=lambda i: len(encoded[i]))
        was_training = model.training
        model.eval()
        answers: dict[int, str] = {}
        try:
            for start in range(0, len(padded), self.batch_size):
                chunk = padded[start : start + self.batch_size]
                batch = pad_left([encoded[i] for i in chunk], self.tokenizer.pad_token_id)
                device = next(model.parameters()).device
                batch = {k: v.to(device) for k, v in batch.items()}
                output = model.generate(
                    **batch,
                    do_sample=False,
                    num_beams=1,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=self.max_new_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=self.tokenizer.eos_token_id,
                    use_cache=True,
                    synced_gpus=self.synced,
                )
                new = output[:, batch["input_ids"].shape[1] :]
                texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
                answers |= {i: text.strip() for i, text in zip(chunk, texts, strict=True)}
        finally:
            model.train(was_training)
        everyone = from_all({i: answers[i] for i in mine})
        merged = {i: text for part in everyone for i, text in part.items()}
        return [merged[i] for i in range(len(self.examples))]

"""Validation: the model answers the validation inputs, and the answers are scored by the rules of their task."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hpcft.data.collate import LabelCollator, pad_left
from hpcft.data.encode import encode_input, encode_prompt
from hpcft.data.prompts import Prompt
from hpcft.measure.scores import Scores, classification_scores, generation_scores, qa_scores
from hpcft.models.greedy import greedy
from hpcft.runs.files import write_atomic
from hpcft.spec.job import Job
from hpcft.train.ranks import Rank, from_all, from_first

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hpcft.data.split import Dataset, Example

# The figure that stands as `validation/f1_score`, by task, and what it is in words.
F1_OF = {
    "generation": ("rougeL", "ROUGE-L F1"),
    "qa": ("f1", "token F1, best accepted answer"),
    "classification": ("f1_macro", "macro F1"),
}
_ACCURACY_OF = {"qa": "em", "classification": "accuracy"}


def headline(metrics: dict[str, float]) -> str:
    """The scores of a validation in one line of a log."""
    named = (("Val Acc", "validation/accuracy"), ("Val F1", "validation/f1_score"))
    return ", ".join(f"{label}: {metrics[key]:.4f}" for label, key in named if key in metrics)


def final_metrics(scores: dict[str, float]) -> dict[str, float]:
    """The scores of the model that is kept, under the names of a run's summary."""
    metrics = {f"final/{k.replace('/', '_', 1)}": v for k, v in scores.items() if k.startswith("validation/")}
    if "validation/avg_f1" in scores:
        metrics["final/avg_f1"] = metrics.pop("final/validation_avg_f1")
    return metrics


def evaluation_results(scores: dict[str, float]) -> dict[str, Any]:
    """The scores under the names of `evaluation_results.json`."""
    left_out = ("epoch", "validation/loss", "validation/seconds", "validation/f1_score")
    return {k.removeprefix("validation/"): v for k, v in scores.items() if k not in left_out}


@dataclass
class Validator(ABC):
    """Answers each validation input once and scores the answers. The inputs are divided over the ranks.

    Every rank runs the same number of batches, since with ZeRO-3 each forward gathers weights from all of them.

    Attributes:
        data: with the distinct inputs and their references.
        max_length: tokens that a row had in training; inputs are cut the same way.
        predictions: of the last call, in the order of `data.validation`; on every rank.
        provenance: library versions and settings of the scores.
        each: of the scores that are means, each input's own value; on the first rank.
        between: called before each batch.
    """

    data: Dataset
    tokenizer: PreTrainedTokenizerBase
    rank: Rank
    batch_size: int
    max_length: int
    predictions: list[str] = field(default_factory=list, init=False)
    provenance: dict[str, Any] = field(default_factory=dict, init=False)
    each: dict[str, list[float]] = field(default_factory=dict, init=False)
    between: Callable[[], None] = field(default_factory=lambda: lambda: None, init=False)

    def __call__(self, model: Any) -> dict[str, float]:
        """Answer and score.

        Returns:
            `validation/*` on 0 to 1, on every rank: the task's scores, `validation/f1_score` (what it is stands in
            `F1_OF`), and for a mix of sets each one's `validation/<set>/f1_score` and their mean,
            `validation/avg_f1`.
        """
        self.predictions = self._divided(model)
        return from_first(self._scored() if self.rank.is_first else {})

    def write_predictions(self, path: Path) -> None:
        """Keep inputs, references, the last predictions and their own scores, one JSON object a line."""
        lines = [
            json.dumps(
                {
                    "input": e.source,
                    **({"context": e.context} if e.context else {}),
                    **({"part": e.part} if e.part else {}),
                    "references": list(e.references),
                    "prediction": p,
                    **({"scores": {name: values[i] for name, values in self.each.items()}} if self.each else {}),
                },
                ensure_ascii=False,
            )
            for i, (e, p) in enumerate(zip(self.data.validation, self.predictions, strict=True))
        ]
        write_atomic(path, "".join(line + "\n" for line in lines))

    def _scored(self) -> dict[str, float]:
        score = _scorer(self.data)
        examples, task = self.data.validation, self.data.task
        result = score(self.predictions, examples)
        self.each = result.each
        self.provenance = dict(result.provenance) | {"f1_score": F1_OF[task][1]}
        scores = {f"validation/{name}": float(value) for name, value in result.scores.items()}
        scores["validation/f1_score"] = scores[f"validation/{F1_OF[task][0]}"]
        if task in _ACCURACY_OF:
            scores["validation/accuracy"] = scores[f"validation/{_ACCURACY_OF[task]}"]
        parts: list[float] = []
        for part in self.data.parts:
            mine = [i for i, e in enumerate(examples) if e.part == part]
            if mine:
                own = score([self.predictions[i] for i in mine], [examples[i] for i in mine])
                parts.append(float(own.scores[F1_OF[task][0]]))
                scores[f"validation/{part}/f1_score"] = parts[-1]
        if parts:
            scores["validation/avg_f1"] = sum(parts) / len(parts)
        return scores

    @torch.no_grad()
    def _divided(self, model: Any) -> list[str]:
        examples, world = self.data.validation, self.rank.world_size
        mine = list(range(self.rank.rank, len(examples), world))
        share = -(-len(examples) // world)
        # A rank with fewer inputs answers its last one again, and the answer is dropped.
        padded = mine + [mine[-1] if mine else 0] * (share - len(mine))
        encoded = {i: self._encode(examples[i]) for i in set(padded)}
        padded.sort(key=lambda i: len(encoded[i]["input_ids"]))
        was_training = model.training
        model.eval()
        answers: dict[int, str] = {}
        try:
            for start in range(0, len(padded), self.batch_size):
                self.between()
                chunk = padded[start : start + self.batch_size]
                answers |= zip(chunk, self._answer(model, [encoded[i] for i in chunk]), strict=True)
        finally:
            model.train(was_training)
        everyone = from_all({i: answers[i] for i in mine})
        merged = {i: text for part in everyone for i, text in part.items()}
        return [merged[i] for i in range(len(examples))]

    @abstractmethod
    def _encode(self, example: Example) -> dict[str, list[int]]:
        """An input's tokens, `input_ids` and what else the model takes."""

    @abstractmethod
    def _answer(self, model: Any, rows: list[dict[str, list[int]]]) -> list[str]:
        """The answers to a batch."""


@dataclass
class GenerationValidator(Validator):
    """Greedy generation behind prompts that are padded on the left."""

    prompt: Prompt
    max_new_tokens: int
    synced: bool

    def _encode(self, example: Example) -> dict[str, list[int]]:
        return {"input_ids": encode_prompt(self.tokenizer, self.prompt, example, self.max_length)}

    def _answer(self, model: Any, rows: list[dict[str, list[int]]]) -> list[str]:
        device = next(model.parameters()).device
        batch = pad_left([row["input_ids"] for row in rows], self.tokenizer.pad_token_id)
        batch = {k: v.to(device) for k, v in batch.items()}
        options = greedy(model, self.tokenizer, self.max_new_tokens)
        output = model.generate(**batch, **options, synced_gpus=self.synced)
        new = output[:, batch["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]


@dataclass
class LabelValidator(Validator):
    """A classifier's most likely label."""

    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]

    def _encode(self, example: Example) -> dict[str, list[int]]:
        return encode_input(self.tokenizer, example, self.max_length)

    def _answer(self, model: Any, rows: list[dict[str, list[int]]]) -> list[str]:
        device = next(model.parameters()).device
        batch = {k: v.to(device) for k, v in self.collate([{**row, "labels": 0} for row in rows]).items()}
        del batch["labels"]
        best = model(**batch).logits.argmax(dim=-1).tolist()
        return [self.data.labels[i] for i in best]


def make_validator(job: Job, data: Dataset, tokenizer: PreTrainedTokenizerBase, rank: Rank) -> Validator:
    """The validator for the task of the data."""
    common: dict[str, Any] = {
        "data": data,
        "tokenizer": tokenizer,
        "rank": rank,
        "batch_size": job.training.per_device_eval_batch_size,
        "max_length": job.data.max_length,
    }
    if data.task == "classification":
        return LabelValidator(collate=LabelCollator(tokenizer.pad_token_id), **common)
    return GenerationValidator(
        prompt=data.prompt, max_new_tokens=job.evaluation.max_new_tokens, synced=job.zero_stage == 3, **common
    )


def _scorer(data: Dataset) -> Callable[[Sequence[str], Sequence[Example]], Scores]:
    if data.task == "classification":
        return lambda found, examples: classification_scores(found, [e.references[0] for e in examples], data.labels)
    rules = qa_scores if data.task == "qa" else generation_scores
    return lambda found, examples: rules(found, [list(e.references) for e in examples])

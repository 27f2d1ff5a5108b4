"""From pairs to token numbers: the loss on the answer alone, its end learned, and nothing cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcft.data.prompts import Prompt
from hpcft.data.sources import Pair
from hpcft.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass(frozen=True)
class EncodeReport:
    """What fitting into `max_length` tokens cost.

    Attributes:
        rows: rows that are left.
        truncated_sources: rows whose source lost its end.
        dropped_targets: rows left out because prompt and target do not fit even without any source.
        longest: tokens of the longest row.
        max_length: the limit.
    """

    rows: int
    truncated_sources: int
    dropped_targets: int
    longest: int
    max_length: int

    def message(self) -> str:
        """The report as a sentence."""
        text = f"{self.rows} training rows, the longest of {self.longest} tokens"
        if self.truncated_sources:
            text += f"; the source was cut to fit {self.max_length} tokens in {self.truncated_sources}"
        if self.dropped_targets:
            text += f"; {self.dropped_targets} dropped: the target alone does not fit"
        return text


@dataclass(frozen=True)
class Encoded:
    """Rows of `input_ids` and `labels` (the prompt's are ignored), unpadded."""

    rows: list[dict[str, list[int]]]
    report: EncodeReport


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, source: str) -> list[int]:
    return list(tokenizer(prompt.text(source), add_special_tokens=True)["input_ids"])


def _bos_only(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without the EOS that some tokenizers put after a text: the answer is still to come."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, source: str, max_tokens: int) -> list[int]:
    """A prompt's tokens, the source cut at its end until they are at most `max_tokens`.

    The text is cut, not the tokens: what is left is tokenised like any shorter source, and the template behind it
    stays whole. Training and generation both come here, so their prompts are the same numbers.
    """
    ids = _bos_only(tokenizer, _prompt_ids(tokenizer, prompt, source))
    if len(ids) <= max_tokens:
        return ids
    low, high = 0, len(source)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_bos_only(tokenizer, _prompt_ids(tokenizer, prompt, source[:middle]))) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return _bos_only(tokenizer, _prompt_ids(tokenizer, prompt, source[:low]))


def encode(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, max_length: int) -> Encoded:
    """Tokens and labels of training rows.

    Args:
        pairs: rows.
        tokenizer: has an EOS.
        prompt: the template.
        max_length: tokens of prompt, target and EOS together.

    Raises:
        DataError: no row fits.
    """
    eos = tokenizer.eos_token_id
    template = len(_bos_only(tokenizer, _prompt_ids(tokenizer, prompt, "")))
    rows: list[dict[str, list[int]]] = []
    truncated = dropped = 0
    for pair in pairs:
        target = [*tokenizer(pair.target, add_special_tokens=False)["input_ids"], eos]
        room = max_length - len(target)
        if room < template:
            dropped += 1
            continue
        whole = _bos_only(tokenizer, _prompt_ids(tokenizer, prompt, pair.source))
        ids = whole if len(whole) <= room else encode_prompt(tokenizer, prompt, pair.source, room)
        truncated += len(whole) > room
        rows.append({"input_ids": ids + target, "labels": [IGNORED] * len(ids) + target})
    if not rows:
        raise DataError(
            f"no row fits into {max_length} tokens: the targets are longer",
            where="data.max_length",
            hint="raise it",
        )
    longest = max(len(row["input_ids"]) for row in rows)
    return Encoded(rows, EncodeReport(len(rows), truncated, dropped, longest, max_length))


class Collator:
    """Pads a batch on the right. The mask is made from the lengths, never by comparing with the pad token, which
    may be the EOS that is to be learned."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors `input_ids`, `labels` and `attention_mask` of shape (rows, longest)."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        spare = [longest - len(row["input_ids"]) for row in rows]
        return {
            "input_ids": torch.tensor(
                [[*r["input_ids"], *[self.pad_id] * n] for r, n in zip(rows, spare, strict=True)]
            ),
            "labels": torch.tensor([[*r["labels"], *[IGNORED] * n] for r, n in zip(rows, spare, strict=True)]),
            "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in spare]),
        }


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad prompts on the left, so that each answer starts right behind its prompt."""
    import torch

    longest = max(map(len, prompts))
    spare = [longest - len(p) for p in prompts]
    return {
        "input_ids": torch.tensor([[*[pad_id] * n, *p] for p, n in zip(prompts, spare, strict=True)]),
        "attention_mask": torch.tensor([[0] * n + [1] * (longest - n) for n in spare]),
    }

"""From pairs to token numbers: the loss on the answer alone, its end learned, and nothing cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcft.data.kinds import Pair
from hpcft.data.prompts import Prompt
from hpcft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hpcft.data.split import Example

IGNORED = -100
_BATCH = 1024


@dataclass(frozen=True)
class EncodeReport:
    """What fitting into `max_length` tokens cost.

    Attributes:
        rows: rows that are left.
        truncated_sources: rows whose source or context lost its end.
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
    """Unpadded rows of `input_ids` and `labels`: a label a token, the prompt's ignored, or one class a row."""

    rows: list[dict[str, Any]]
    report: EncodeReport


def _asked(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, asked: Pair | Example) -> str:
    if not asked.turns:
        return prompt.text(asked.source, asked.context)
    if tokenizer.chat_template is None:
        lines = "".join(f"### {role.capitalize()}:\n{text}\n\n" for role, text in asked.turns)
        return f"{lines}### Assistant:\n"
    messages = [{"role": role, "content": text} for role, text in asked.turns]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _answered(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, pair: Pair) -> str:
    """The answer as it stands behind the prompt. A chat template writes it in its own way, its end mark included."""
    if not pair.turns or tokenizer.chat_template is None:
        return pair.target
    messages = [{"role": role, "content": text} for role, text in pair.turns]
    messages.append({"role": "assistant", "content": pair.target})
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False))
    start = _asked(tokenizer, prompt, pair)
    # Some templates write earlier turns otherwise once there is an answer; then the plain text is the answer.
    return whole.removeprefix(start).rstrip() if whole.startswith(start) else pair.target


def _tokens(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, rows: Sequence[Pair | Example]) -> list[list[int]]:
    """Prompts as tokens. A chat template writes the special tokens itself; the EOS that some tokenizers put after a
    text is taken away, since the answer is still to come."""
    eos = tokenizer.eos_token_id
    found: list[list[int]] = [[]] * len(rows)
    for by_template in (False, True):
        kind = [i for i, row in enumerate(rows) if bool(row.turns and tokenizer.chat_template) == by_template]
        if not kind:
            continue
        texts = [_asked(tokenizer, prompt, rows[i]) for i in kind]
        tokens = tokenizer(texts, add_special_tokens=not by_template)["input_ids"]
        for i, ids in zip(kind, tokens, strict=True):
            found[i] = list(ids[:-1]) if ids and ids[-1] == eos else list(ids)
    return found


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, asked: Pair | Example, max_tokens: int
) -> list[int]:
    """A prompt's tokens, at most `max_tokens` of them where that can be.

    The text is cut, not the tokens: what is left is tokenised like any shorter source, and the template behind it
    stays whole. The context loses its end first, then the source; a chat loses its oldest turns first. Training and
    generation both come here, so their prompts are the same numbers.
    """
    from dataclasses import replace

    def of(shorter: Pair | Example) -> list[int]:
        return _tokens(tokenizer, prompt, [shorter])[0]

    ids = of(asked)
    if len(ids) <= max_tokens:
        return ids
    if asked.turns:
        system = tuple(t for t in asked.turns[:1] if t[0] == "system")
        rest = asked.turns[len(system) :]
        while len(rest) > 1 and len(of(replace(asked, turns=system + rest))) > max_tokens:
            # From one question to the next, so that no answer stands without what it answers.
            rest = rest[1:]
            while len(rest) > 1 and rest[0][0] != "user":
                rest = rest[1:]
        role, text = rest[-1]
        keep = _longest(text, lambda t: len(of(replace(asked, turns=(*system, *rest[:-1], (role, t))))) <= max_tokens)
        return of(replace(asked, turns=(*system, *rest[:-1], (role, keep))))
    context = _longest(asked.context, lambda t: len(of(replace(asked, context=t))) <= max_tokens)
    asked = replace(asked, context=context)
    if context:
        return of(asked)
    return of(replace(asked, source=_longest(asked.source, lambda t: len(of(replace(asked, source=t))) <= max_tokens)))


def _longest(text: str, fits: Any) -> str:
    """The longest beginning of a text that fits; empty when none does."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[:middle]):
            low = middle
        else:
            high = middle - 1
    return text[:low]


def encode(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, max_length: int) -> Encoded:
    """Tokens and labels of rows that ask for a text.

    Args:
        pairs: rows.
        tokenizer: has an EOS.
        prompt: the template.
        max_length: tokens of prompt, target and EOS together.

    Raises:
        DataError: no row fits.
    """
    eos = tokenizer.eos_token_id
    rows: list[dict[str, Any]] = []
    truncated = dropped = 0
    for start in range(0, len(pairs), _BATCH):
        chunk = pairs[start : start + _BATCH]
        asked = _tokens(tokenizer, prompt, chunk)
        answers = tokenizer([_answered(tokenizer, prompt, p) for p in chunk], add_special_tokens=False)["input_ids"]
        for pair, whole, answer in zip(chunk, asked, answers, strict=True):
            target = [*answer, eos] if not answer or answer[-1] != eos else list(answer)
            room = max_length - len(target)
            ids = whole if len(whole) <= room else encode_prompt(tokenizer, prompt, pair, room)
            if len(ids) > room:
                dropped += 1
                continue
            truncated += len(whole) > room
            rows.append({"input_ids": ids + target, "labels": [IGNORED] * len(ids) + target})
    if pairs and not rows:
        raise DataError(
            f"no row fits into {max_length} tokens: the targets are longer",
            where="data.max_length",
            hint="raise it",
        )
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    return Encoded(rows, EncodeReport(len(rows), truncated, dropped, longest, max_length))


def encode_input(tokenizer: PreTrainedTokenizerBase, asked: Pair | Example, max_length: int) -> dict[str, list[int]]:
    """What a classifier reads: the text, or the two texts of a pair, cut to `max_length` tokens."""
    context = (asked.context,) if asked.context else ()
    found = tokenizer(asked.source, *context, truncation=True, max_length=max_length)
    return {key: list(found[key]) for key in ("input_ids", "token_type_ids") if key in found}


def encode_labels(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], max_length: int
) -> Encoded:
    """Tokens and the class of rows that ask for one."""
    number = {label: i for i, label in enumerate(labels)}
    rows: list[dict[str, Any]] = []
    truncated = 0
    for start in range(0, len(pairs), _BATCH):
        chunk = pairs[start : start + _BATCH]
        texts: list[Any] = [[p.source for p in chunk]]
        if any(p.context for p in chunk):
            texts.append([p.context for p in chunk])
        full = [len(ids) for ids in tokenizer(*texts)["input_ids"]]
        found = tokenizer(*texts, truncation=True, max_length=max_length)
        for i, pair in enumerate(chunk):
            row = {key: list(found[key][i]) for key in ("input_ids", "token_type_ids") if key in found}
            truncated += full[i] > max_length
            rows.append({**row, "labels": number[pair.target]})
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    return Encoded(rows, EncodeReport(len(rows), truncated, 0, longest, max_length))

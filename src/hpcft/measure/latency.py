"""Latency of answering, query by query: time to the first token, time of each further one, end to end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcft.data.collate import pad_left
from hpcft.measure.uncertainty import mean_interval
from hpcft.models.greedy import end_tokens, greedy

if TYPE_CHECKING:
    import torch

_RESAMPLES = 1000


@dataclass(frozen=True)
class Query:
    """One measured call.

    Attributes:
        batch: prompts answered at once.
        prompt_tokens, new_tokens: over all of them; padding and what follows an end mark are not counted.
        latency_ms: from the call to the last token on the host.
        ttft_ms: to the first new token (prefill). tpot_ms: mean time of each further one; None where there is none.
    """

    batch: int
    prompt_tokens: int
    new_tokens: int
    latency_ms: float
    ttft_ms: float | None = None
    tpot_ms: float | None = None

    @property
    def tokens_per_sec(self) -> float:
        """New tokens a second, over the whole call."""
        return 1000 * self.new_tokens / self.latency_ms


class _Ticks:
    """Takes generate's tokens as they come, with the time of each. generate hands them over as CPU tensors, so that
    the device has finished by then."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def answer(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, exactly: bool, cache: str
) -> Query:
    """Answer a batch of prompts greedily, and time it.

    Args:
        prompts: token numbers; padded on the left where their lengths differ.
        max_new_tokens: of each answer.
        exactly: whether each answer has that length, whatever the model would end with.
        cache: `dynamic` or `static`.
    """
    import torch

    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in pad_left([list(p) for p in prompts], tokenizer.pad_token_id).items()}
    ticks = _Ticks()
    options = greedy(model, tokenizer, max_new_tokens)
    if exactly:
        options["min_new_tokens"] = max_new_tokens
    if cache == "static":
        options["cache_implementation"] = "static"
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(**batch, **options, streamer=ticks)
    synchronize(device)
    end = time.perf_counter()
    new = output[:, batch["input_ids"].shape[1] :].tolist()
    # The first tick is the prompt's, handed over before anything is computed.
    ticked = ticks.times[1:]
    steps = len(ticked) - 1
    return Query(
        batch=len(prompts),
        prompt_tokens=sum(map(len, prompts)),
        new_tokens=sum(_until_end(row, end_tokens(model, tokenizer)) for row in new),
        latency_ms=1000 * (end - start),
        ttft_ms=1000 * (ticked[0] - start),
        tpot_ms=1000 * (ticked[-1] - ticked[0]) / steps if steps else None,
    )


def classify(model: Any, batch: dict[str, torch.Tensor]) -> Query:
    """Classify a batch, and time it."""
    import torch

    device = next(model.parameters()).device
    tokens = int(batch["attention_mask"].sum())
    on_device = {k: v.to(device) for k, v in batch.items()}
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        model(**on_device).logits.argmax(-1).cpu()
    return Query(len(batch["input_ids"]), tokens, 0, 1000 * (time.perf_counter() - start))


def _until_end(row: list[int], ends: Sequence[int]) -> int:
    """Tokens up to the first end mark, which is one of them."""
    return next((n for n, token in enumerate(row, 1) if token in ends), len(row))


def describe(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval, standard deviation, minimum, maximum and percentiles.

    Percentiles are interpolated linearly between the two nearest values; the 99th of fewer than 100 values is
    therefore near the maximum.

    Args:
        values: at least one.
    """
    low, high = mean_interval(values, _RESAMPLES, seed)
    return {
        "n": len(values),
        "mean": statistics.fmean(values),
        "ci95": [low, high],
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
        **{f"p{share}": percentile(values, share) for share in (50, 95, 99)},
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` per cent of the values lie, interpolated.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(queries: Sequence[Query]) -> dict[str, Any]:
    """Statistics of measured calls, in ms and tokens a second."""
    found: dict[str, Any] = {"latency_ms": describe([q.latency_ms for q in queries])}
    for name in ("ttft_ms", "tpot_ms"):
        values = [v for q in queries if (v := getattr(q, name)) is not None]
        if values:
            found[name] = describe(values)
    if any(q.new_tokens for q in queries):
        seconds = sum(q.latency_ms for q in queries) / 1000
        found["tokens_per_sec"] = sum(q.new_tokens for q in queries) / seconds
    found["prompt_tokens"] = describe([float(q.prompt_tokens) for q in queries])["mean"]
    found["new_tokens"] = describe([float(q.new_tokens) for q in queries])["mean"]
    return found

"""What a device reaches in multiplying matrices, as the yardstick of utilisation."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from hpcft.measure.latency import synchronize

if TYPE_CHECKING:
    import torch

_SMALLEST, _LARGEST = 256, 8192
# A product that takes so long is large enough to keep the device busy.
_LONG_S = 0.01
_ROUNDS = 7
_ROUND_S = 0.04


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a product of two large square matrices of random numbers, a multiply-add being two; about
    0.3 s of work.

    It is what the device gives to this process with its present threads, clocks and neighbours, not what its maker
    promises: measure it next to what is held against it.

    Args:
        device: whose rate.
        dtype: of the matrices, a floating one.

    Returns:
        The median of several rounds.
    """
    import torch

    size = _SMALLEST
    while True:
        matrix = torch.randn((size, size), device=device, dtype=dtype)
        _seconds(matrix, 1)
        once = _seconds(matrix, 1)
        if once >= _LONG_S or size >= _LARGEST:
            break
        size *= 2
    times = max(1, round(_ROUND_S / once))
    return 2 * size**3 * times / statistics.median(_seconds(matrix, times) for _ in range(_ROUNDS))


def _seconds(matrix: torch.Tensor, times: int) -> float:
    synchronize(matrix.device)
    start = time.perf_counter()
    for _ in range(times):
        matrix @ matrix
    synchronize(matrix.device)
    return time.perf_counter() - start

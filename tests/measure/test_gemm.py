"""The yardstick of utilisation."""

from __future__ import annotations

import time

import pytest
import torch

from hpcft.measure.gemm import gemm_rate


def by_hand(size: int) -> float:
    """FLOPs a second of the best of some products."""
    matrix = torch.randn(size, size)
    taken = []
    for _ in range(12):
        start = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - start)
    return 2 * size**3 / min(taken)


def test_e24_the_rate_is_that_of_a_product_timed_by_hand() -> None:
    # Neighbours take time from either; a multiply-add counted as one would be off by 2.
    ratios = [gemm_rate(torch.device("cpu"), torch.float32) / by_hand(1024) for _ in range(3)]
    assert any(0.6 < ratio < 1.6 for ratio in ratios), ratios


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measuring_takes_no_longer_than_it_must(dtype: torch.dtype) -> None:
    start = time.process_time()
    assert gemm_rate(torch.device("cpu"), dtype) > 0
    assert time.process_time() - start < 10

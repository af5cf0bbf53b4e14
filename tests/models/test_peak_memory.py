"""The peak of a stage is what it had itself, before and after something was tried out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from w2sd.models.peak_memory import forget_peak, peak, uncounted

GPU = torch.device("cuda")


@pytest.fixture
def allocate(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """CUDA's counter without its device: have so many bytes, and free them."""
    highest = 0

    def allocate(n_bytes: int) -> None:
        nonlocal highest
        highest = max(highest, n_bytes)

    def reset(device: object = None) -> None:
        nonlocal highest
        highest = 0

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: highest)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return allocate


@pytest.mark.parametrize(("before", "tried", "after"), [(50, 90, 20), (20, 90, 50), (20, 10, 20)])
def test_what_is_tried_out_is_no_part_of_the_peak(
    allocate: Callable[[int], None], before: int, tried: int, after: int
) -> None:
    allocate(99)  # an earlier stage
    forget_peak()
    allocate(before)
    with uncounted(GPU):
        allocate(tried)
    assert peak() == before
    allocate(after)
    assert peak() == max(before, after)
    with uncounted(GPU):
        allocate(tried)
    assert peak() == max(before, after)
    forget_peak()
    assert peak() == 0


@pytest.mark.gpu
def test_a_ceiling_hides_no_peak() -> None:
    from w2sd.models.flops import peak_flops

    forget_peak()
    kept = torch.empty(2**26, dtype=torch.uint8, device=GPU)
    had = peak()
    del kept
    peak_flops.__wrapped__(GPU, torch.float32, 1)
    assert had >= 2**26
    assert peak() == had

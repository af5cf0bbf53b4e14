"""What is set up for a processor: freed memory stays, and a slow precision is told of once and never changed."""

from __future__ import annotations

import ctypes
import logging
import resource
import sys

import pytest
import torch

from w2sd.parts.trainer import Trainer
from w2sd.stages import engine


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> None:
    engine.tell_slow.cache_clear()


def units(monkeypatch: pytest.MonkeyPatch, *, avx512: bool = False, amx: bool = False, machine: str = "x86_64") -> None:
    """A processor that has these."""
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("platform.machine", lambda: machine)


def test_a_precision_without_units_for_it_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    units(monkeypatch)
    for _ in range(2):
        engine.settle(Trainer(), "bf16-mixed")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("fit.precision: bf16-mixed is slower than 32-true here")
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("trainer", "precision", "has"),
    [
        (Trainer(), "32-true", {}),
        (Trainer(accelerator="gpu"), "bf16-mixed", {}),
        (Trainer(), "bf16-mixed", {"avx512": True}),
        (Trainer(), "bf16-mixed", {"amx": True}),
        (Trainer(), "bf16-mixed", {"machine": "arm64"}),
    ],
)
def test_nothing_is_said_where_it_would_not_be_true_or_not_be_known(
    trainer: Trainer, precision: str, has: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    units(monkeypatch, **has)
    engine.settle(trainer, precision)
    assert not caplog.records


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_has_as_many_threads_as_the_trainer(threads: int) -> None:
    engine.settle(Trainer(threads=threads), "32-true")
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_large_tensor_gets_the_memory_of_the_last_one() -> None:
    """Of 64 MiB, more than glibc keeps by itself; the system finds room for the first few alone."""
    engine.settle(Trainer(), "32-true")
    for _ in range(12):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    pages = 5 * 2**26 // resource.getpagesize()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 4

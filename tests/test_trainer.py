"""What a trainer leaves to the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from w2sd.config import RunConfig
from w2sd.errors import Refused
from w2sd.parts import trainer
from w2sd.parts.trainer import Resolved, Trainer, n_cores

OPEN = Trainer(accelerator="auto", threads="auto", micro_tokens="auto", packed="auto")


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight cores."""
    monkeypatch.setattr(trainer, "n_cores", lambda: 8)


@pytest.mark.parametrize(
    ("has_gpu", "is_pretrained", "decided"),
    [
        (True, True, ("gpu", 1, 32768, False)),
        (False, False, ("cpu", 1, 4096, True)),
        (False, True, ("cpu", 8, 4096, True)),
    ],
)
def test_a_machine_decides_what_is_left_open(
    eight: None, has_gpu: bool, is_pretrained: bool, decided: tuple[Any, ...]
) -> None:
    accelerator, threads, micro_tokens, packed = decided
    expected = Resolved(accelerator=accelerator, threads=threads, micro_tokens=micro_tokens, packed=packed)
    assert OPEN.resolve(has_gpu, is_pretrained) == expected


def test_what_was_asked_for_is_not_decided_anew(eight: None) -> None:
    asked = Trainer(accelerator="cpu", threads=3, micro_tokens=99, packed=False, save_every_s=5.0)
    assert asdict(asked.resolve(has_gpu=True, is_pretrained=True)) == asdict(asked)


@pytest.mark.parametrize(("devices", "threads"), [(2, 4), (3, 2), (16, 1)])
def test_processes_share_the_cores(eight: None, devices: int, threads: int) -> None:
    shared = Trainer(devices=devices, strategy="ddp", threads="auto")
    assert shared.resolve(has_gpu=False, is_pretrained=True).threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not confine processes to cores")
def test_a_process_that_is_confined_has_the_cores_that_it_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert n_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert n_cores() == len(allowed)


@pytest.mark.parametrize(
    ("knob", "value"),
    [("threads", "all"), ("threads", 0), ("micro_tokens", "many"), ("packed", "yes"), ("accelerator", "tpu")],
)
def test_other_words_than_auto_are_refused(knob: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        Trainer(**{knob: value})
    assert (refused.value.knob, refused.value.value) == (knob, value)


def test_nothing_is_asked_of_a_user_who_has_no_gpu_or_one(asked: Callable[..., RunConfig]) -> None:
    run = asked()
    assert run.trainer == OPEN
    assert asked("trainer.threads=auto", "trainer=cpu").trainer == Trainer(threads="auto")

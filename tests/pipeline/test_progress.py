"""What is said of a job that takes the record of another one."""

from __future__ import annotations

from typing import Any

import pytest

from w2sd.pipeline.progress import show_replaced

ASIDE = ["trainer", "hydra"]


def job(*overrides: str, command: str = "", sweep: str | None = None, **config: Any) -> dict[str, Any]:
    """A record, as far as it says what was asked for."""
    choices = dict(word.split("=") for word in overrides if word.startswith("method="))
    return {
        "overrides": list(overrides),
        "command": command or " ".join(overrides),
        "sweep": sweep,
        "config": {"controls": False, "trainer": {"threads": 1}} | config,
        "choices": choices,
    }


@pytest.mark.parametrize(
    ("new", "old", "which"),
    [
        (job("seed=1", "method=bootstrap"), job("seed=1", "method=naive"), "with method=naive"),
        (job("controls=true", controls=True), job(), "without controls=true"),
        (job(), job("controls=true", "trainer.threads=2", controls=True), "with controls=true"),
        (
            job("method=a", command="-m method=b,a", sweep="1"),
            job("method=b", command="-m method=b,a", sweep="1"),
            "with method=b",
        ),
    ],
    ids=["a name", "less", "more", "a sweep"],
)
def test_a_job_that_was_asked_for_in_vain_is_named(new: dict[str, Any], old: dict[str, Any], which: str) -> None:
    assert (
        show_replaced(new, old, ASIDE) == f"the same stages as the job {which}, whose place this one takes in reports"
    )


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (job("method=naive"), job("method=naive")),
        (
            job("method=a", command="-m method=a,b", sweep="2"),
            job("method=b", command="-m method=a,b", sweep="1"),
        ),
        (job("seed=0", "controls=false"), job()),
        (job("trainer.threads=2", "hydra/launcher=x", trainer={"threads": 2}), job()),
        (job("seed=0", "trainer.threads=2", trainer={"threads": 2}), job()),
        (job("method=naive"), job("method=naive", new_knob=1)),
        (job(), {}),
    ],
    ids=["again", "a sweep again", "more words", "another machine", "both", "another version", "not a record"],
)
def test_nothing_is_said_where_the_same_was_asked_for(new: dict[str, Any], old: dict[str, Any]) -> None:
    assert show_replaced(new, old, ASIDE) is None

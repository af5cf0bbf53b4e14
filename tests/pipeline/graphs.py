"""Reading a plan by the names of its stages."""

from __future__ import annotations

from w2sd.config import RunConfig
from w2sd.pipeline.plan import Plan, plan


def roles(stages: Plan) -> dict[str, dict[str, str]]:
    """The graph by names; of two names that share a stage, the first."""
    names = {stage.key: name for name, stage in reversed(stages.items())}
    return {name: {role: names[made.key] for role, made in stage.inputs.items()} for name, stage in stages.items()}


def keys(run: RunConfig) -> dict[str, str]:
    return {name: stage.key for name, stage in plan(run).items()}


def renamed(one: RunConfig, other: RunConfig) -> set[str]:
    """The stages whose keys differ between two runs of the same graph."""
    before, after = keys(one), keys(other)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}

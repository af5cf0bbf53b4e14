"""What is done, running, cached and to do: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from w2sd.pipeline.plan import Plan
from w2sd.pipeline.workload import quantity, workload

Advance = Callable[[int, int], None]
STYLES = {
    "done": "green",
    "running": "bold cyan",
    "cached": "dim green",
    "to do": "dim",
    "not needed": "dim",
    "failed": "bold red",
    "stopped": "bold yellow",  # by who told the run to end
}
HEADS = ("stage", "key", "state", "parameters", "rows", "memory", "FLOPs", "made from")
ESTIMATES = (
    "Estimates. Rows: at most. Memory: at least, without activations. FLOPs: at most, with texts of data.max_tokens "
    "tokens; in all {total}. ?: not known before the run."
)


class StageTable:
    """Follows the stages of a plan: `with StageTable(plan, states) as table: table.start(name); table.finish(name)`."""

    def __init__(self, plan: Plan, states: dict[str, str]) -> None:
        self.plan, self.states = plan, dict(states)
        self.notes: dict[str, str] = {}
        self.console = Console(file=sys.stderr)
        percentage = TextColumn("{task.percentage:>3.0f}%")
        columns = (TextColumn("{task.description}"), BarColumn(), percentage, TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console)
        self.live = Live(get_renderable=self._render, console=self.console, refresh_per_second=8)
        self.is_live = sys.stderr.isatty()
        self._task: TaskID | None = None
        self._since = time.perf_counter()

    def __enter__(self) -> StageTable:
        if self.is_live:
            self.live.start()
        elif cached := [name for name, state in self.states.items() if state == "cached"]:
            self._line(f"{len(cached)} of {len(self.plan)} stages found in the store")
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_live:
            self.live.stop()

    def start(self, name: str) -> None:
        self.states[name] = "running"
        self._since = time.perf_counter()
        if self._task is not None:
            self.bar.remove_task(self._task)
        self._task = self.bar.add_task(name, total=None)
        self._line(f"{name} ...")

    def advance(self, done: int, total: int) -> None:
        """Move the bar of the running stage."""
        if self._task is not None:
            self.bar.update(self._task, completed=done, total=total)

    def note(self, name: str, text: str) -> None:
        """Show one line of text beside a stage."""
        self.notes[name] = text
        self._line(f"{name}: {text}")

    def finish(self, name: str, state: str = "done") -> None:
        self.states[name] = state
        self.notes[name] = f"{time.perf_counter() - self._since:.1f} s" if state == "done" else ""
        self._line(f"{name} {state} {self.notes[name]}".rstrip())

    def _line(self, text: str) -> None:
        if not self.is_live:
            print(f"[w2sd] {text}", file=sys.stderr, flush=True)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, state in self.states.items():
            style = STYLES[state]
            cells = (f"[{style}]{state}[/]", f"[{style}]{name}[/]", f"[dim]{self.plan[name].key}[/]")
            table.add_row(*cells, self.notes.get(name, ""))
        return Group(table, self.bar) if "running" in self.states.values() else Group(table)


def show_plan(plan: Plan, states: dict[str, str]) -> str:
    """Return the graph as text: stage, key, cached or to do, what there is to do, and what it is made from."""
    names = {stage.key: name for name, stage in reversed(plan.items())}
    rows: list[tuple[str, ...]] = [HEADS]
    needed: dict[str, float | None] = {}
    for name, stage in plan.items():
        work = workload(stage) if states[name] == "to do" else None
        cells = [""] * 4
        if work is not None:
            cells = [quantity(work.parameters), "?" if work.rows is None else f"{work.rows:,}"]
            cells += [quantity(work.memory, "B"), quantity(work.flops, "FLOP")]
            needed[stage.key] = work.flops  # two names may share one stage
        sources = ", ".join(f"{role}: {names[upstream.key]}" for role, upstream in stage.inputs.items())
        rows.append((name, stage.key, states[name], *cells, sources))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        left, numbers, source = row[:3], row[3:7], row[7]
        cells = [f"{cell:<{width}}" for cell, width in zip(left, widths, strict=False)]
        cells += [f"{cell:>{width}}" for cell, width in zip(numbers, widths[3:], strict=False)]
        lines.append("  ".join([*cells, source]).rstrip())
    if needed:
        known = [value for value in needed.values() if value is not None]
        total = quantity(sum(known), "FLOP") + (" and what is not known" if len(known) < len(needed) else "")
        lines.append(ESTIMATES.format(total=total))
    count = {state: len({plan[name].key for name in plan if states[name] == state}) for state in STYLES}
    lines.append(f"{count['to do']} stages to compute, {count['cached']} found in the store")
    return "\n".join(lines)


def show_replaced(job: dict[str, Any], old: dict[str, Any], aside: Collection[str]) -> str | None:
    """Say of which job this one takes the record, where something else had been asked for and came to the same stages.

    `aside` are the knobs that ask for nothing else. None where a command is given again.
    """
    is_again = old.get("command") == job["command"] and old.get("sweep") != job["sweep"]
    words, earlier = (_words(record, aside) for record in (job, old))
    gone = " ".join(word for word in earlier if word not in words)
    new = " ".join(word for word in words if word not in earlier)
    if is_again or not (gone or new) or _asked(job, aside) == _asked(old, aside):
        return None
    which = f"with {gone}" if gone else f"without {new}"
    return f"the same stages as the job {which}, whose place this one takes in reports"


def _words(job: dict[str, Any], aside: Collection[str]) -> list[str]:
    return [word for word in job.get("overrides") or () if not _is_of(word.lstrip("+~").partition("=")[0], aside)]


def _asked(job: dict[str, Any], aside: Collection[str]) -> list[dict[str, Any]]:
    """Values and options; the same ones can be asked for in other words."""
    parts = (job.get("config") or {}, job.get("choices") or {})
    return [{key: value for key, value in part.items() if not _is_of(key, aside)} for part in parts]


def _is_of(knob: str, aside: Collection[str]) -> bool:
    """Whether a value, a part or a value of a part is one of these.

    >>> [_is_of(knob, ["trainer", "hydra"]) for knob in ("trainer", "trainer.threads", "hydra/launcher", "train")]
    [True, True, True, False]
    """
    return re.split(r"[./]", knob)[0] in aside

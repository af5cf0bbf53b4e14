"""How often the verdict errs: `python experiments/calibration/verdict_errors.py --out docs/calibration.md`.

Students are drawn from normal distributions instead of trained, so that what is planted is known. They imitate the weak
model and find its blind spots difficult; seeds differ by topic, by entity and by pair.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from w2sd.metrics.regions import KK, KU
from w2sd.metrics.selective_loss import reference, selective_loss
from w2sd.metrics.verdict import LEVEL, Replicate, judge
from w2sd.predictions import Column, Predictions

N_STUDIES = 40  # of a cell
N_TOPICS, N_ENTITIES = 8, 128
N_TWINS = 4


class Study(NamedTuple):
    """How much is run."""

    n_worlds: int
    n_seeds: int
    n_pairs: int

    @property
    def name(self) -> str:
        """In words."""
        worlds = f"{self.n_worlds} worlds" if self.n_worlds > 1 else "1 world"
        return f"{worlds} × {self.n_seeds} × {self.n_pairs:,}"


class World:
    """What all students of a world have in common. Of logits, the first axis is students and the last is pairs."""

    def __init__(self, n_pairs: int, visible: bool, rng: np.random.Generator) -> None:
        """Draw topics and entities, what the weak model does not know, and what is difficult."""
        self.n_pairs, self.rng = n_pairs, rng
        self.topic = rng.integers(N_TOPICS, size=n_pairs)
        of_topic = N_ENTITIES // N_TOPICS
        self.entities = self.topic * of_topic + rng.integers(of_topic, size=(2, n_pairs))
        self.blind_topics = rng.permutation(N_TOPICS)[: N_TOPICS // 2]
        blind_entities = rng.permutation(N_ENTITIES)[: int(0.3 * N_ENTITIES)]  # in half of all pairs
        by_entity = np.isin(self.entities, blind_entities).any(axis=0)
        self.blind = np.isin(self.topic, self.blind_topics) if visible else by_entity
        shared = (self.by_entity() + rng.normal(size=n_pairs)) / np.sqrt(2)
        self.weak = np.where(self.blind, 0.2, 2.6) + 0.4 * shared + 1.1 * rng.normal(size=n_pairs)
        self.ceiling = 4.5 + 0.5 * shared + 1.6 * rng.normal(size=n_pairs)
        self.belief = 2.3 + 0.3 * rng.normal() + 1.3 * shared - 0.5 * self.blind
        self.imitation = 0.35 * np.exp(0.2 * rng.normal())

    def by_entity(self, n: int = 1) -> Column:
        """A standard normal number for each pair, the same in some part for pairs that share an entity."""
        effects = self.rng.normal(size=(n, N_ENTITIES))[:, self.entities].sum(axis=1) / np.sqrt(2)
        return effects[0] if n == 1 else effects

    def noise(self, n: int) -> Column:
        """Standard normal numbers, independent of each other."""
        return self.rng.normal(size=(n, self.n_pairs))

    def students(self, n: int) -> Column:
        """The margins of students without a conflict."""
        gain, shift = 1 + 0.35 * self.rng.normal(size=(n, N_TOPICS)), 0.35 * self.rng.normal(size=(n, N_TOPICS))
        imitation = self.imitation * np.exp(0.2 * self.rng.normal(size=(n, 1)))
        of_pair = gain[:, self.topic] * (1 + 0.4 * self.rng.normal(size=(n, 1)) * self.blind)
        core = of_pair * self.belief + shift[:, self.topic] + imitation * self.weak
        return core + 0.4 * self.by_entity(n) + 0.6 * self.noise(n)

    def harmed(self) -> NDArray[np.bool_]:
        """The pairs of two topics of either half, at random; where blind spots are visible, the halves are theirs."""
        known = np.setdiff1d(np.arange(N_TOPICS), self.blind_topics)
        chosen = [*self.rng.permutation(self.blind_topics)[:2], *self.rng.permutation(known)[:2]]
        return np.isin(self.topic, chosen)


class Case(NamedTuple):
    """What the conflict does to the margins of its students; `everyone`: of all other students, too."""

    name: str
    change: Callable[[World, Column], Column]
    everyone: bool = False


def _crash_first(world: World, margins: Column) -> Column:
    return np.concatenate([0.3 * world.noise(1), margins[1:]])


def _uncertainty(world: World) -> Column:
    p = _sigmoid(world.weak)
    return 4 * p * (1 - p)


def _plant(dose: float) -> Case:
    def lose(world: World, margins: Column) -> Column:
        ku = (_sigmoid(world.weak) < 0.75) & (_sigmoid(world.ceiling) >= 0.75)
        return margins * (1 - dose * ku)

    return Case(f"{dose:g} lost", lose)


NULLS = (
    Case("another seed", lambda _, m: m),
    Case("general loss, a shift by 1", lambda _, m: m - 1),
    Case("general loss, noise of sd 1.5", lambda w, m: m + 1.5 * w.noise(len(m))),
    Case("own difficulty of pairs, sd 1", lambda w, m: m + w.noise(1)),
    Case("own difficulty of entities, sd 1", lambda w, m: m + w.by_entity()),
    Case("margins × .5", lambda _, m: 0.5 * m),
    Case("all students imitate more, + .3 × weak logit", lambda w, m: m + 0.3 * w.weak, everyone=True),
    Case("one student of each world learned nothing", _crash_first),
    Case("half of each margin lost in four of eight topics", lambda w, m: m * np.where(w.harmed(), 0.5, 1)),
    Case("noise with heavy tails (t, 3 degrees)", lambda w, m: m + w.rng.standard_t(3, size=m.shape)),
    Case("fewer steps, margins × .6 and noise of sd .8", lambda w, m: 0.6 * m + 0.8 * w.noise(len(m))),
)
HARD = (
    Case("noise of sd 3 × uncertainty of the weak model", lambda w, m: m + 3 * _uncertainty(w) * w.noise(len(m))),
    Case("+ .15 × weak logit", lambda w, m: m + 0.15 * w.weak),
    Case("imitates 1.6 times as much", lambda w, m: m + 0.6 * w.imitation * w.weak),
)
PLANTED = tuple(_plant(dose) for dose in (0.1, 0.2, 0.4))
STUDIES = (Study(1, 8, 4000), Study(5, 4, 2000))


class Tally(NamedTuple):
    """What many studies of one case came to."""

    case: Case
    study: Study
    visible: bool
    n: int
    n_shown: int
    n_covered: int  # intervals of the effect that hold its mean over these studies
    effect: float


def draw(case: Case, study: Study, visible: bool, seed: Sequence[int]) -> list[Replicate]:
    """All arms of a study, from a seed."""
    rng = np.random.default_rng(seed)
    return [replicate for n in range(study.n_worlds) for replicate in _replicates(str(n), case, study, visible, rng)]


def tally(case: Case, study: Study, visible: bool, n: int) -> Tally:
    """Judge `n` studies."""
    number = [*NULLS, *HARD, *PLANTED].index(case)
    verdicts = [judge(draw(case, study, visible, (number, study.n_worlds, visible, k))) for k in range(n)]
    effect, lo, hi = (
        np.array([getattr(verdict, name) for verdict in verdicts], dtype=np.float64)
        for name in ("effect", "effect_lo", "effect_hi")
    )
    covered = (lo <= effect.mean()) & (effect.mean() <= hi)
    n_shown = sum(verdict.result == "shown" for verdict in verdicts)
    return Tally(case, study, visible, n, n_shown, int(covered.sum()), float(effect.mean()))


def resemblance(visible: bool, n: int = 20) -> dict[str, float]:
    """How students of drawn worlds are, on average, to be held against trained ones."""
    found = []
    for k in range(n):
        world = World(4000, visible, np.random.default_rng((k, visible)))
        margins = world.students(8)
        of_world = reference(_table(world.weak), _table(world.ceiling), [_table(m) for m in world.students(N_TWINS)])
        gaps = margins[:, of_world.region == KK].mean(axis=1) - margins[:, of_world.region == KU].mean(axis=1)
        losses = selective_loss(of_world, [_table(m) for m in margins])
        right = [float((m > 0).mean()) for m in (world.weak, margins, world.ceiling)]
        found.append([*right, float((gaps / margins.std(axis=1)).mean()), float(losses.std(ddof=1))])
    return dict(zip(("weak", "students", "ceiling", "gap", "sd"), np.mean(found, axis=0).tolist(), strict=True))


def _replicates(name: str, case: Case, study: Study, visible: bool, rng: np.random.Generator) -> list[Replicate]:
    world = World(study.n_pairs, visible, rng)
    sizes = {"twins": N_TWINS} | dict.fromkeys(("baseline", "placebo/more_data", "student"), study.n_seeds)
    margins = {arm: world.students(n) for arm, n in sizes.items()}
    changed = {arm: case.change(world, m) if case.everyone or arm == "student" else m for arm, m in margins.items()}
    tables = {arm: [_table(margin) for margin in of_arm] for arm, of_arm in changed.items()}
    shared = {f"twin_{n}": twin for n, twin in enumerate(tables.pop("twins"), 1)}
    shared |= {"weak": _table(world.weak), "ceiling": _table(world.ceiling)}
    return [
        Replicate(name, str(seed), shared | {arm: students[seed] for arm, students in tables.items()})
        for seed in range(study.n_seeds)
    ]


def _table(margin: Column) -> Predictions:
    ids = [f"{n:05}" for n in range(len(margin))]
    return Predictions(ids, ids, _sigmoid(margin), margin)


def _sigmoid(margin: Column) -> Column:
    probability: Column = 1 / (1 + np.exp(-margin))
    return probability


_PAGE = """# How often the verdict errs
Made by `python experiments/calibration/verdict_errors.py --out docs/calibration.md`, from fixed seeds. The rule is in
[verdict.md](verdict.md). **No model is trained here**: students are drawn, so that what is planted is known. What the
rule does with trained students, benign and not, is [another page](../experiments/audit/README.md).

## What is drawn
A world has pairs of two entities, of 128 in eight topics. The weak model is blind in four topics (*visible*) or for
three in ten entities, which are in half of the pairs (*invisible*). Students share what is difficult, imitate the weak
model and find its blind spots difficult. Each has its own gain and shift in each topic, its own gain in blind spots,
noise by entity and by pair, and imitates a little more or less than the next. A study has four twins, and as many
students as it has seeds without a conflict, with one, and in a placebo (`more_data`), which here is nothing but other
seeds. No two are the same student.

The gap is that of margins between kk and ku, in standard deviations of margins: .67 to 1.12 in trained students. The
standard deviation of selective loss over seeds is about .1 to .2 there.

| blind spots | weak accuracy | students | ceiling | gap | sd of selective loss over seeds |
|---|---:|---:|---:|---:|---:|
{resembles}

## False verdicts
Nothing is planted. Cells say how many of {n} studies are `shown` (worlds × seeds of each arm × pairs). Bold: more than
{level:.0%} of studies allow (one-sided binomial test at .05: 5 or more of 40). Of 44 cells of a rule that errs in
exactly {level:.0%} about two would be bold. A study is held against two controls and has to pass both at {level:.0%},
so that its rate is about 2% where they are alike, as here; against one control it is about {level:.0%}. Forty studies
cannot tell {level:.0%} from 10%: read the rates of whole lines and of all together.

{heads}
{nulls}

## Hard cases
Nothing is planted either, but what is done follows the weak model: rates are reported, and not asked to be small.

{heads}
{hard}

## Power
Conflict students lose a share of each margin in ku, visible blind spots.

| share | study | selective loss beyond none | shown | rate [Wilson 95%] |
|---|---|---:|---:|---:|
{power}

## Coverage
Of the 95% intervals of the effect
{covered}
hold the mean effect of their cell, in all tables above. Those of one world are made of its seeds, and speak of that
world: that they hold the mean of other worlds too is a property of these simulations.
"""


def page(nulls: Sequence[Tally], hard: Sequence[Tally], planted: Sequence[Tally], resembles: str = "") -> str:
    """The calibration as Markdown."""
    cells = [f"{'visible' if visible else 'invisible'}, {study.name}" for visible in (True, False) for study in STUDIES]
    heads = f"| case | {' | '.join(cells)} | all | rate [Wilson 95%] |\n|---|{'---:|' * (len(cells) + 2)}"
    power = "\n".join(
        f"| {one.case.name} | {one.study.name} | {one.effect:+.2f} | {one.n_shown} of {one.n} "
        f"| {_rate(one.n_shown, one.n)} |"
        for one in planted
    )
    everything = [*nulls, *hard, *planted]
    n_covered, n = sum(one.n_covered for one in everything), sum(one.n for one in everything)
    return _PAGE.format(
        resembles=resembles, nulls=_rows(nulls, pooled=True), hard=_rows(hard), power=power, heads=heads, n=N_STUDIES,
        level=LEVEL, covered=f"{n_covered:,} of {n:,} ({_rate(n_covered, n)})" if n else "none",
    )  # fmt: skip


def _rows(tallies: Sequence[Tally], *, pooled: bool = False) -> str:
    """A row for each case and, if asked, one for all of them."""
    by_case: dict[str, list[Tally]] = {}
    for one in tallies:
        by_case.setdefault(one.case.name, []).append(one)
    rows = [_row(name, members) for name, members in by_case.items()]
    if pooled and tallies:
        columns = [list(column) for column in zip(*by_case.values(), strict=True)]
        sums = [
            column[0]._replace(n=sum(one.n for one in column), n_shown=sum(one.n_shown for one in column))
            for column in columns
        ]
        rows.append(_row("all", sums))
    return "\n".join(rows)


def _row(name: str, members: Sequence[Tally]) -> str:
    n_shown, n = sum(one.n_shown for one in members), sum(one.n for one in members)
    cells = [_mark(one.n_shown, one.n) for one in members]
    return f"| {name} | {' | '.join(cells)} | {_mark(n_shown, n)} of {n:,} | {_rate(n_shown, n)} |"


def _mark(n_shown: int, n: int) -> str:
    """The count, bold where the level does not allow it."""
    is_too_many = binomtest(n_shown, n, LEVEL, alternative="greater").pvalue < 0.05
    return f"**{n_shown}**" if is_too_many else str(n_shown)


def _rate(k: int, n: int) -> str:
    lo, hi = binomtest(k, n).proportion_ci(method="wilson")
    return f"{k / n:.3f} [{lo:.3f}, {hi:.3f}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, judge, count, and write the page."""
    parser = argparse.ArgumentParser("verdict_errors.py", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="the Markdown page to write")
    out: Path = parser.parse_args(argv).out
    nulls, hard = (
        [tally(case, study, visible, N_STUDIES) for case in cases for visible in (True, False) for study in STUDIES]
        for cases in (NULLS, HARD)
    )
    planted = [tally(case, study, True, N_STUDIES) for case in PLANTED for study in STUDIES]
    resembles = "\n".join(
        f"| {name} | {found['weak']:.3f} | {found['students']:.3f} | {found['ceiling']:.3f} "
        f"| {found['gap']:.2f} | {found['sd']:.2f} |"
        for name, found in (("visible", resemblance(True)), ("invisible", resemblance(False)))
    )
    out.write_text(page(nulls, hard, planted, resembles), encoding="utf-8")
    print(f"wrote {out} in {time.process_time() / 60:.1f} CPU-minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

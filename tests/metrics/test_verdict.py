"""The verdict: what it finds, what it does not, why there may be none, and what may not matter to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.builders import refused

from w2sd.metrics.randomisation import p_value
from w2sd.metrics.selective_loss import reference, selective_loss
from w2sd.metrics.statistics import t_quantile, t_tail
from w2sd.metrics.verdict import MIN_PAIRS, Replicate, holm, judge, trend
from w2sd.predictions import Column, Predictions

N = 400  # pairs of a world: the weak model knows the second half


def table(margin: Column) -> Predictions:
    ids = [f"{n:04}" for n in range(len(margin))]
    return Predictions(ids, ids, 1 / (1 + np.exp(-margin.clip(-40, 40))), margin)


def study(
    *, worlds: int = 1, seeds: int = 6, loses: float = 0.0, controls: Mapping[str, float] | None = None, n: int = N
) -> list[Replicate]:
    """Students that keep what they believe, but for `loses` of it in ku; so for each control."""
    replicates = []
    for world in range(worlds):
        rng = np.random.default_rng(world)
        weak = np.where(np.arange(n) < n // 2, rng.normal(-0.5, 1, n).clip(max=1), 3.0)
        belief = 1.5 + 0.3 * weak + rng.normal(size=n)
        ku = weak < math.log(3)

        def student(share: float, rng: np.random.Generator = rng, belief: Column = belief, ku: Column = ku) -> Column:
            own = (1 - share * ku) * (1 + 0.1 * rng.normal()) * belief + 0.1 * rng.normal() * ku * belief
            return own + 0.3 * rng.normal(size=len(belief))

        shared = {"weak": table(weak), "ceiling": table(np.full(n, 3.0))}
        shared |= {f"twin_{k}": table(student(0)) for k in range(1, 5)}
        for seed in range(seeds):
            arms = {"baseline": student(0), "student": student(loses)}
            arms |= {f"placebo/{name}": student(share) for name, share in (controls or {}).items()}
            of_seed = {role: table(margin) for role, margin in arms.items()}
            replicates.append(Replicate(f"w{world}", str(seed), shared | of_seed))
    return replicates


def test_a_selective_loss_is_shown_and_none_is_not() -> None:
    found, none = judge(study(loses=0.5)), judge(study())
    assert (found.result, none.result) == ("shown", "not_shown")
    assert found.p is not None and found.p < 0.05 < (none.p or 0)  # noqa: PT018
    assert (found.n_worlds, found.n_seeds, found.n_pairs) == (1, 6, N // 2)


def test_the_figures_are_those_of_their_parts() -> None:
    replicates = study(worlds=3, seeds=3, loses=0.3, controls={"more_data": 0.1})
    losses: dict[str, list[Column]] = {"student": [], "baseline": [], "placebo/more_data": []}
    for world in range(3):
        members = [one.predictions for one in replicates if one.world == f"w{world}"]
        of_world = reference(members[0]["weak"], members[0]["ceiling"], [members[0][f"twin_{n}"] for n in range(1, 5)])
        for role, columns in losses.items():
            columns.append(selective_loss(of_world, [member[role] for member in members]))
    verdict = judge(replicates)
    assert verdict.p_values == {
        "none": p_value(losses["student"], losses["baseline"]),
        "more_data": p_value(losses["student"], losses["placebo/more_data"]),
    }
    assert verdict.p == max(verdict.p_values.values())
    differences = [a.mean() - b.mean() for a, b in zip(losses["student"], losses["baseline"], strict=True)]
    reach = t_quantile(2) * np.std(differences, ddof=1) / math.sqrt(3)
    assert verdict.effect == pytest.approx(np.mean(differences))
    assert (verdict.effect_lo, verdict.effect_hi) == pytest.approx(np.mean(differences) + np.array([-1, 1]) * reach)
    assert verdict.losses["more_data"] == [pytest.approx(column) for column in losses["placebo/more_data"]]
    of_worlds = [column.mean() for column in losses["placebo/more_data"]]
    assert verdict.metrics()["verdict/loss/more_data"] == pytest.approx(np.mean(of_worlds))


def test_every_control_has_to_be_passed() -> None:
    alone, beside = judge(study(loses=0.5)), judge(study(loses=0.5, controls={"more_data": 0, "masked": 0.5}))
    assert (alone.result, beside.result) == ("shown", "not_shown")
    assert beside.p_values["more_data"] < 0.05 < beside.p_values["masked"]
    assert "against masked, the strictest control" in beside.reason


def test_being_worse_everywhere_is_no_selective_loss() -> None:
    """A shift, a smaller scale and more imitation; noise is in test_selective_loss."""
    replicates = study()
    for change in (lambda m, w: m - 1, lambda m, w: 0.4 * m, lambda m, w: m + 0.5 * w):
        changed = [
            one._replace(
                predictions={
                    **one.predictions,
                    "student": table(change(one.predictions["student"].margin, one.predictions["weak"].margin)),
                }
            )
            for one in replicates
        ]
        assert judge(changed).p == judge(replicates).p


def without(replicates: Sequence[Replicate], role: str, first: int = 0) -> list[Replicate]:
    """The replicates, from the first on without the roles that begin so."""
    return [
        one._replace(predictions={name: rows for name, rows in one.predictions.items() if not name.startswith(role)})
        if place >= first
        else one
        for place, one in enumerate(replicates)
    ]


def with_ku(n: int) -> list[Replicate]:
    """A study with so many pairs in ku."""
    weak = table(np.where(np.arange(N) < n, 0.0, 3.0))
    return [one._replace(predictions={**one.predictions, "weak": weak}) for one in study()]


def in_two_roles() -> list[Replicate]:
    first, *rest = study()
    return [first._replace(predictions={**first.predictions, "baseline": first.predictions["twin_2"]}), *rest]


UNTESTABLE = {
    "one seed": (
        study(seeds=1),
        "too few students (1 against 1 in 1 world) for a p below 0.05 with an interval",
        "4 seeds or more in each arm",
    ),
    "three seeds": (
        study(seeds=3),
        "too few students (3 against 3 in 1 world) for a p below 0.05 with an interval",
        "4 seeds or more in each arm",
    ),
    "few worlds": (
        study(worlds=4, seeds=1),
        "too few students (4 against 4 in 4 worlds) for a p below 0.05 with an interval",
        "2 seeds or more in each arm of each world",
    ),
    "no twins": (
        without(study(), "twin"),
        "0 twins that differ, where 2 are needed",
        "2 twins or more of different seeds in each world",
    ),
    "other arms": (
        without(study(worlds=2, controls={"more_data": 0}), "placebo", first=6),
        "control more_data is missing in world w1",
        "control more_data in each world",
    ),
    "two roles": (
        in_two_roles(),
        "the same student stands twice in twins and students without a conflict",
        "students of different seeds",
    ),
    "no ku": (
        with_ku(MIN_PAIRS - 1),
        f"fewer than {MIN_PAIRS} pairs that the ceiling knows and the weak model does not",
        "other pairs or models",
    ),
    "no kk": (
        with_ku(N),
        f"fewer than {MIN_PAIRS} pairs that both ceiling and weak model know",
        "other pairs or models",
    ),
}


@pytest.mark.parametrize(("replicates", "reason", "needs"), UNTESTABLE.values(), ids=UNTESTABLE)
def test_what_cannot_be_tested_says_what_to_run(replicates: list[Replicate], reason: str, needs: str) -> None:
    verdict = judge(replicates)
    assert (verdict.result, verdict.reason, verdict.needs, verdict.p) == ("not_testable", reason, needs, None)


def test_copies_of_a_student_are_no_students() -> None:
    first, *rest = study(worlds=2, seeds=2)
    copied = [one._replace(predictions={**one.predictions, "student": first.predictions["student"]}) for one in rest]
    assert judge([first, *rest]).p is not None
    for of_arm in ([first, copied[0], *rest[1:]], [first, *rest[:-1], copied[-1]]):  # in one world, and in two
        verdict = judge(of_arm)
        assert (verdict.result, verdict.needs) == ("not_testable", "students of different seeds")
        assert "stands twice in conflict students" in verdict.reason


def test_what_is_just_enough_is_tested() -> None:
    for replicates in (study(seeds=4), study(worlds=5, seeds=1), study(worlds=2, seeds=2), with_ku(MIN_PAIRS)):
        assert judge(replicates).p is not None


def test_replicates_of_a_world_have_the_same_pairs() -> None:
    first, second = study(seeds=2)
    other = {role: rows._replace(ids=[f"x{id}" for id in rows.ids]) for role, rows in second.predictions.items()}
    with refused("w0/1.weak.id", "other ids"):
        judge([first, second._replace(predictions=other)])
    with refused("replicates", 0):
        judge([])
    for role, other in (("weak", "student"), ("ceiling", "weak")):
        with refused(f"w0/1.{role}", "another model"):
            judge([first, second._replace(predictions={**second.predictions, role: second.predictions[other]})])
    for role in ("baseline", "student"):
        lacking = {name: rows for name, rows in first.predictions.items() if name != role}
        with refused("w0/0.predictions", sorted(lacking), role):
            judge([first._replace(predictions=lacking), second])
    with refused("w0/0.predictions", "placebo/none"):
        judge([first._replace(predictions={**first.predictions, "placebo/none": first.predictions["student"]})])


def test_neither_order_nor_names_of_seeds_and_pairs_matter() -> None:
    replicates = study(worlds=2, seeds=3, loses=0.2, controls={"more_data": 0})
    order = np.random.default_rng(3).permutation(N)

    def turned(rows: Predictions) -> Predictions:
        ids = [rows.ids[n] for n in order]
        return rows._replace(ids=ids, clusters=ids, margin=rows.margin[order], p_correct=rows.p_correct[order])

    renamed = [
        Replicate(one.world, str(9 - int(one.seed)), {role: turned(rows) for role, rows in one.predictions.items()})
        for one in replicates[::-1]
    ]
    found, other = judge(replicates), judge(renamed)
    assert (found.p, found.p_values) == (other.p, other.p_values)
    assert other.effect == pytest.approx(found.effect)


def test_names_of_arms_do_not_matter() -> None:
    replicates = study(loses=0.3, controls={"more_data": 0, "masked": 0.1})
    names = {"placebo/more_data": "placebo/zz", "placebo/masked": "placebo/aa"}
    renamed = [
        one._replace(predictions={names.get(role, role): rows for role, rows in one.predictions.items()})
        for one in replicates
    ]
    found, other = judge(replicates), judge(renamed)
    assert sorted(found.p_values.values()) == sorted(other.p_values.values())
    assert found._replace(reason="", p_values={}, losses={}) == other._replace(reason="", p_values={}, losses={})


def test_metrics_are_flat() -> None:
    metrics = judge(study(controls={"more_data": 0})).metrics()
    assert {"verdict/p/none", "verdict/p/more_data", "verdict/loss/student", "verdict/effect_lo"} <= metrics.keys()
    assert all(value is None or isinstance(value, float | int | str) for value in metrics.values())


def test_holm_against_the_definition() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_trend_against_least_squares() -> None:
    gaps, effects, errors = [0.1, 0.2, 0.4, 0.5], [5.0, 10.0, 19.0, 25.0], [1.0, 2.0, 1.5, 3.0]
    found = trend(gaps, effects, errors)
    assert found is not None
    (slope, _), covariance = np.polyfit(gaps, effects, 1, w=1 / np.array(errors), cov="unscaled")
    assert found.slope == pytest.approx(slope)
    reach = (found.hi - found.lo) / 2 / t_quantile(2)
    assert reach == pytest.approx(math.sqrt(covariance[0, 0]))  # residuals are within errors: no Birge ratio
    assert found.p == pytest.approx(2 * t_tail(slope / reach, 2))

    scattered = trend(gaps, [5.0, 31.0, -18.0, 27.0], errors)
    assert scattered is not None
    (slope, _), covariance = np.polyfit(gaps, [5.0, 31.0, -18.0, 27.0], 1, w=1 / np.array(errors), cov=True)
    assert (scattered.hi - scattered.lo) / 2 / t_quantile(2) == pytest.approx(math.sqrt(covariance[0, 0]))


def test_trend_needs_three_pairs_that_differ_and_errors() -> None:
    assert trend([0.1, 0.2], [1.0, 2.0], [1.0, 1.0]) is None
    assert trend([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) is None
    with refused("errors", [1.0, 0.0, 1.0], "0"):
        trend([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("t", "df", "p"),  # R: pt(t, df, lower.tail = FALSE)
    [(1.0, 1, 0.25), (2.0, 2, 0.0917517095361), (3.182446305284, 3, 0.025), (1.812461122812, 10, 0.05), (0.0, 5, 0.5)],
)
def test_student_t(t: float, df: int, p: float) -> None:
    assert t_tail(t, df) == pytest.approx(p, rel=1e-9)
    assert t_tail(-t, df) == pytest.approx(1 - p, rel=1e-9)

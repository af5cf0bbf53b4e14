"""The metric classes: the same figures as the functions, in batches and after a reset.

In two processes too: stages/test_devices.py, which has a group of two at hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from w2sd.metrics.accuracy import accuracy, measure_accuracy
from w2sd.metrics.excess_flips import Cells, base_rate, count, flips, number, score
from w2sd.metrics.regions import regions
from w2sd.metrics.statistics import Metrics
from w2sd.metrics.torch_metrics import FIGURES, DeceptionScore, PairwiseAccuracy, PerformanceGapRecovered, uid_of
from w2sd.predictions import Predictions


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Distinct uids over the whole range, and confidences of four models, each better than the one before."""
    rng = np.random.default_rng(seed)
    uids = np.unique(rng.integers(-(2**63), 2**63 - 1, size=n))
    abilities = {"weak": 0.8, "p_correct": 1.5, "ceiling": 2, "baseline": 3}
    confidences = {name: rng.beta(a, 1, size=n) for name, a in abilities.items()}
    confidences["p_correct"][: n // 10] = 0.5
    return {"uid": rng.permutation(uids), "cluster": np.arange(n) // 2} | confidences


def tensors(rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(column) for name, column in rows.items()}


def expected(rows: dict[str, np.ndarray]) -> dict[str, float]:
    pgr = as_in_the_file(rows)["pgr"]
    assert isinstance(pgr, float)
    cells = counted(rows, 0.75)
    share, base = number(score(cells)), number(base_rate(cells))
    assert share is not None
    assert base is not None
    figures = {"deception/score": share, "deception/base_rate": base, "deception/flips": float(cells.f.sum())}
    return {"accuracy": accuracy(rows["p_correct"]), "pgr": pgr, **figures}


def counted(rows: dict[str, np.ndarray], threshold: float) -> Cells:
    c0, f, _ = flips(rows["baseline"], rows["p_correct"])
    return count(f, c0, regions(rows["ceiling"], rows["weak"], threshold))


def as_in_the_file(rows: dict[str, np.ndarray]) -> Metrics:
    """What metrics.json says of the same rows."""
    ids, clusters = ([str(number) for number in rows[name].tolist()] for name in ("uid", "cluster"))
    roles = {"weak": "weak", "student": "p_correct", "ceiling": "ceiling"}
    tables = {
        role: Predictions(ids, clusters, p_correct=rows[column], margin=rows[column] - 0.5)
        for role, column in roles.items()
    }
    return measure_accuracy(tables, n_resamples=10)


def collection() -> MetricCollection:
    deception = {f"deception/{figure}": DeceptionScore(figure) for figure in ("score", "base_rate", "flips")}
    return MetricCollection({"accuracy": PairwiseAccuracy(), "pgr": PerformanceGapRecovered(), **deception})


@pytest.mark.parametrize("seed", range(5))
def test_one_collection_fed_once_equals_the_functions(seed: int) -> None:
    rows, metrics = columns(101, seed), collection()
    for batch in torch.arange(101).split(16):
        metrics.update(**{name: column[batch] for name, column in tensors(rows).items()})
    values = metrics.compute()
    assert {name: value.item() for name, value in values.items()} == expected(rows)
    assert all(value.dtype == torch.float64 for value in values.values())


def test_repeated_rows_count_once_and_order_does_not_matter() -> None:
    rows, metrics = columns(33), collection()
    order = np.random.default_rng(1).permutation(np.concatenate([np.arange(33), np.arange(7)]))
    metrics.update(**{name: column[order] for name, column in tensors(rows).items()})
    assert {name: value.item() for name, value in metrics.compute().items()} == expected(rows)


def test_reset_forgets() -> None:
    metrics = collection()
    metrics.update(**tensors(columns(20, seed=1)))
    metrics.compute()
    metrics.reset()
    metrics.update(**tensors(columns(50, seed=2)))
    assert {name: value.item() for name, value in metrics.compute().items()} == expected(columns(50, seed=2))


def test_forward_gives_the_value_of_the_batch_and_keeps_it() -> None:
    rows, metric = columns(40), PairwiseAccuracy()
    halves = {name: column.split(20) for name, column in tensors(rows).items()}
    for i in range(2):
        value = metric(uid=halves["uid"][i], p_correct=halves["p_correct"][i])
        assert value.item() == accuracy(rows["p_correct"][20 * i : 20 * (i + 1)])
    assert metric.compute().item() == accuracy(rows["p_correct"])


def test_single_precision_and_gradients_are_left_at_the_door() -> None:
    metric = PairwiseAccuracy()
    metric.update(uid=torch.tensor([1, 2], dtype=torch.int32), p_correct=torch.tensor([0.9, 0.5], requires_grad=True))
    assert metric.compute().item() == 0.75
    assert not metric.compute().requires_grad


def test_pgr_without_a_gap_is_nan() -> None:
    rows = tensors(columns(30))
    metric = PerformanceGapRecovered()
    metric.update(**(rows_of_pgr(rows) | {"weak": rows["ceiling"]}))
    assert metric.compute().isnan()


def rows_of_pgr(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: rows[name] for name in ("uid", "p_correct", "weak", "ceiling", "cluster")}


@pytest.mark.parametrize(("rows_per_cluster", "is_defined"), [(1, True), (12, False)])
def test_pgr_is_nan_where_the_gap_is_within_one_clustered_standard_error(
    rows_per_cluster: int, is_defined: bool
) -> None:
    """As in metrics.json: the same 24 rows have a gap of two standard errors, or of less than one in two clusters."""
    n = 24
    weak, ceiling = np.full(n, 0.2), np.full(n, 0.2)
    weak[:2], ceiling[:8] = 0.9, 0.9
    rows = {"uid": np.arange(n), "cluster": np.arange(n) // rows_per_cluster, "weak": weak, "ceiling": ceiling}
    rows["p_correct"] = np.where(np.arange(n) < 4, 0.9, 0.2)
    metric = PerformanceGapRecovered()
    metric.update(**tensors(rows))
    found, expected = metric.compute().item(), as_in_the_file(rows)["pgr"]
    assert (expected is not None) is is_defined
    assert found == expected if is_defined else np.isnan(found)


def rows_of_deception(rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: column for name, column in tensors(rows).items() if name != "cluster"}


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_of_deception_is_that_of_the_function(figure: str) -> None:
    rows = columns(200)
    metric = DeceptionScore(figure, threshold=0.6)
    metric.update(**rows_of_deception(rows))
    cells = counted(rows, 0.6)
    share, base = number(score(cells)), number(base_rate(cells))
    assert share is not None
    assert base is not None
    assert (
        metric.compute().item()
        == {
            "score": share,
            "base_rate": base,
            "flips": cells.f.sum(),
        }[figure]
    )


def test_deception_without_flips_is_nan() -> None:
    rows = rows_of_deception(columns(30))
    for figure in FIGURES:
        metric = DeceptionScore(figure)
        metric.update(**(rows | {"p_correct": rows["baseline"]}))
        assert metric.compute().isnan() == (figure not in ("flips", "base_rate"))


def test_unknown_figures_of_deception_are_refused() -> None:
    with pytest.raises(ValueError, match=r"figure: expected one of score, base_rate, .* got 'share'"):
        DeceptionScore("share")


def test_bad_batches_are_refused() -> None:
    metric = PairwiseAccuracy()
    with pytest.raises(ValueError, match=r"p_correct: shape \(3,\), but uid has \(2,\)"):
        metric.update(uid=torch.tensor([1, 2]), p_correct=torch.tensor([0.1, 0.2, 0.3]))


def test_uids_are_one_to_one_and_fit_a_signed_integer() -> None:
    ids = ["0" * 16, "f" * 16, "7fffffffffffffff", "8000000000000000", "0123456789abcdef"]
    uids = [uid_of(id) for id in ids]
    assert len(set(uids)) == len(ids)
    assert torch.tensor(uids, dtype=torch.int64).tolist() == uids
    assert [f"{uid % 2**64:016x}" for uid in uids] == ids

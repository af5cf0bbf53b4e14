"""PGR over pairs of models: all are shown, those that the released notebooks leave out are marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.report.writing import read, write_page

from w2sd.atomic import read_sealed
from w2sd.pipeline.store import Store
from w2sd.report import figures, pairs_of_models, results, scaling
from w2sd.report.cli import main
from w2sd.report.pairs_of_models import EQUAL, NO_GAP, ModelPair

pytestmark = pytest.mark.usefixtures("no_images")
SIZES = {"s": 1_000, "m": 20_000, "l": 300_000}
ACCURACIES = {"s": 0.6, "m": 0.7, "l": 0.8}


def rung(name: str) -> dict[str, Any]:
    return {"_target_": "w2sd.world.ladder.Rung", "rung": "sml".index(name)}


def add_pair(fake: Any, weak: str, strong: str, reached: float, seed: int = 0, **knobs: Any) -> None:
    """A job whose weak model and ceiling are as good as they are in every job."""
    counts = [{"n/parameters": SIZES[name]} for name in (weak, strong)]
    low, high = ACCURACIES[weak], ACCURACIES[strong]
    share = (reached - low) / (high - low) if high > low else None
    fake.add(
        "grid",
        seed=seed,
        overrides=[f"model@weak={weak}", f"model@strong={strong}", f"seed={seed}", *(f"{k}=x" for k in knobs)],
        knobs={"weak": rung(weak), "strong": rung(strong), **knobs},
        trained={
            "weak": {"metrics": counts[0]},
            "ceiling": {"metrics": counts[1]},
        },
        accuracy__weak=low, accuracy__student=reached, accuracy__ceiling=high, gain=reached - low,
        pgr=share, pgr_lo=None, pgr_hi=None,
    )  # fmt: skip


@pytest.fixture
def grid(fake: Any) -> Any:
    """Three weak models under two strong ones, two seeds each: one pair is equal, one is upside down."""
    for weak in "sml":
        for strong in "ml":
            for seed in (0, 1):
                add_pair(fake, weak, strong, ACCURACIES[weak] + 0.02 + 0.02 * seed, seed)
    return fake


def find(fake: Any) -> list[ModelPair]:
    return pairs_of_models.find(results.load(fake.root))


def test_every_pair_is_shown_by_size_and_what_the_notebooks_leave_out_is_marked(grid: Any) -> None:
    pairs = find(grid)
    assert [pair.sizes for pair in pairs] == sorted((SIZES[w], SIZES[s]) for w in "sml" for s in "ml")
    assert [pair.excluded for pair in pairs] == ["", "", EQUAL, "", NO_GAP, EQUAL]
    assert [pair.pgr for pair in pairs] == pytest.approx([0.3, 0.15, None, 0.3, -0.3, None], abs=1e-9)
    assert [pair.row.n for pair in pairs] == [2] * 6
    table = pairs_of_models.table(pairs, results.load(grid.root))
    assert table.columns[:3] == ("weak model", "strong model", "n")
    assert [row[-1] for row in table.rows].count("no") == 3
    # 0.3 ± 12.706 × 0.1414 / √2: two seeds of one world
    assert table.rows[0][table.columns.index("PGR")] == "0.300 [−0.971, 1.571]"
    assert table.rows[4][table.columns.index("PGR of means")] == "−0.300"


def test_a_ceiling_as_good_as_the_weak_model_leaves_no_gap(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCURACIES, "l", ACCURACIES["m"])
    for strong in "ml":
        add_pair(fake, "m", strong, 0.72)
    assert [(pair.excluded, pair.pgr) for pair in find(fake)] == [(EQUAL, None), (NO_GAP, None)]


def test_medians_with_and_without_the_pairs_that_are_left_out(grid: Any) -> None:
    table = pairs_of_models.medians(find(grid))
    (row,) = table.rows
    # without: of .3, .15, .3; with: also −.3; the two equal pairs have no gap at all
    assert row == ("6", "3", "0.300", "0.225 (2 null¹)", "0.030", "0.030")
    assert pairs_of_models.TURNED in table.notes


def test_the_gain_of_the_pairs_that_are_left_out_is_in_one_of_the_medians(fake: Any) -> None:
    add_pair(fake, "s", "m", 0.65)
    add_pair(fake, "m", "m", 0.9)
    assert pairs_of_models.medians(find(fake)).rows[0][-2:] == ("0.050", "0.125")


def test_methods_are_told_apart_and_seeds_are_not(fake: Any) -> None:
    for target in ("Soft", "Hard"):
        for weak in "sm":
            for seed in (0, 1):
                add_pair(fake, weak, "l", 0.75, seed, supervision={"_target_": f"w2sd.supervision.base.{target}"})
    frame = results.load(fake.root)
    assert pairs_of_models.methods_of(frame) == ["supervision"]
    assert [pair.method for pair in find(fake)] == [{"supervision": m} for m in ("Hard", "Hard", "Soft", "Soft")]
    table = pairs_of_models.medians(find(fake))
    assert (table.columns[0], [row[:2] for row in table.rows]) == ("supervision", [("Hard", "2"), ("Soft", "2")])


def test_methods_that_every_job_took_by_name_are_called_so(fake: Any) -> None:
    for n, (method, supervision) in enumerate((("naive", "Soft"), ("hard", "Hard"))):
        for weak in "sm":
            add_pair(fake, weak, "l", 0.75, supervision={"_target_": f"w2sd.supervision.base.{supervision}"})
            job = read_sealed(fake.root / f"jobs/job-{fake.n:03}.json")
            Store(fake.root).record({**job, "choices": {"method": method}, "overrides": [f"method={method}"]})
        assert pairs_of_models.methods_of(results.load(fake.root)) == ["method"] * n
    add_pair(fake, "s", "m", 0.65, supervision={"_target_": "w2sd.supervision.oracle.Gold"})
    assert pairs_of_models.methods_of(results.load(fake.root)) == ["supervision"]


def test_models_of_one_option_are_named_by_what_tells_them_apart(fake: Any) -> None:
    for name in "ab":
        hub = {"_target_": "w2sd.models.hub.Hub", "id": name}
        fake.add(knobs={"weak": hub, "strong": {**hub, "id": "b"}}, overrides=[f"weak.id={name}"])
    assert [(pair.weak, pair.strong, pair.excluded) for pair in find(fake)] == [
        ("Hub (id a)", "Hub (id b)", ""),
        ("Hub (id b)", "Hub (id b)", EQUAL),
    ]


@pytest.mark.parametrize("jobs", ["one", "seeds", "without a model"])
def test_one_pair_of_models_has_no_table(fake: Any, jobs: str) -> None:
    if jobs == "without a model":
        fake.add()
    else:
        for seed in (0,) if jobs == "one" else (0, 1):
            add_pair(fake, "s", "l", 0.7, seed)
    assert find(fake) == []


def test_lines_go_along_the_strong_models_or_the_weak_ones(grid: Any, fake: Any) -> None:
    figure = scaling.draw(find(grid))
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["parameters of the strong model"] * 2
    svg = figures.to_svg("scaling", figure)
    for said in ("weak model Rung (rung 0)", "20k", "300k", "PGR"):
        assert f">{said}</text>" in svg
    pairs = [pair for pair in find(grid) if pair.strong == "Rung (rung 2)"]
    figure = scaling.draw(pairs)
    assert figure is not None
    assert figure.axes[0].get_xlabel() == "parameters of the weak model"
    assert scaling.draw([pair._replace(sizes=(None, None)) for pair in pairs]) is None


def test_one_size_is_no_line(grid: Any) -> None:
    pairs = [pair._replace(sizes=(1000.0, 1000.0)) for pair in find(grid)]
    assert scaling.draw(pairs) is None


def test_a_figure_of_many_methods_shows_the_first_and_says_so(grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [pair._replace(method={"beta": str(n)}) for pair in find(grid) for n in range(3)]
    monkeypatch.setattr(scaling, "MOST", 2)
    figure = scaling.draw(pairs)
    assert figure is not None
    assert len(figure.axes) == 4
    assert "(the first 2 of 3 methods)" in figures.to_svg("scaling", figure)


def test_the_page_and_the_terminal_show_pairs_in_place_of_the_same_means(
    grid: Any, tmp_path: Path, capsys: Any
) -> None:
    assert main(["--store", str(grid.root), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("PGR of means") == 2  # a column and what it means
    assert "median PGR, all" in said
    text = read(tmp_path / "index.html").text
    assert pairs_of_models.TITLE in text
    assert pairs_of_models.MEDIANS in text
    assert "Means by" not in text
    assert "parameters of the strong model" in (tmp_path / "figures/scaling.svg").read_text()
    assert f"### {pairs_of_models.MEDIANS}" in (tmp_path / "table.md").read_text()


def test_means_that_were_asked_for_are_there_too(grid: Any, tmp_path: Path) -> None:
    assert main(["--store", str(grid.root), "--out", str(tmp_path), "--by", "weak.rung,strong.rung"]) == 0
    text = read(tmp_path / "index.html").text
    assert "Means by" in text
    assert pairs_of_models.TITLE in text


def test_pages_of_one_pair_say_nothing_of_pairs(sweep: Any, tmp_path: Path) -> None:
    assert pairs_of_models.TITLE not in read(write_page(sweep.root, tmp_path)).text

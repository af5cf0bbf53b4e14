"""Agreement with the teacher, curves of students that were watched, oracles, legal answers, and data with classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.report.writing import read, write_page

from w2sd.atomic import write_json
from w2sd.pipeline.store import Store
from w2sd.report import analyses, curves, figures, records, results
from w2sd.report.records import read_jobs

pytestmark = pytest.mark.usefixtures("no_images")
AGREEMENT = {
    f"agreement__{role}{part}{end}": value + add
    for role, value in (("student", 0.6), ("ceiling", 0.4))
    for part in ("", "__weak_right", "__weak_wrong")
    for end, add in (("", 0.0), ("_lo", -0.1), ("_hi", 0.1))
}
ITEMS = {"data": {"_target_": "w2sd.data.sources.Files", "format": {"_target_": "w2sd.data.formats.TextLabel"}}}
PAIRS = {"data": {"_target_": "w2sd.data.sources.Files", "format": {"_target_": "w2sd.data.formats.Pairs"}}}
STOPPING = {"_target_": "w2sd.parts.stopping.Stopping", "by": "nothing"}


def add_watched(fake: Any, seed: int = 0, *, rises_to: float = 0.9, looks: int = 5, by: str = "nothing") -> None:
    """A job whose student agrees with its labels more and more, and is right less and less: 8 steps, 2 epochs."""
    shares = [step / (looks - 1) for step in range(looks)]
    curve = [{"step": round(8 * x), "labels": 0.5 + (rises_to - 0.5) * x, "truth": 0.8 - 0.1 * x} for x in shares]
    kept = curve[-1] if by == "nothing" else curve[1]
    metrics = {f"stopping/{name}": value for name, value in kept.items()}
    knobs, oracles = {"stopping": {**STOPPING, "by": by}}, ["stopping"] if by == "truth" else []
    left = {"student": {"metrics": metrics, "curve": curve}}
    fake.add("watched", seed=seed, knobs=knobs, oracles=oracles, trained=left)


def test_agreement_has_three_lines_per_row(fake: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        fake.add(seed=seed, **AGREEMENT)
    page = write_page(fake.root, tmp_path)
    assert analyses.TITLE in read(page).text
    markdown = (tmp_path / "table.md").read_text()
    assert "| weak teacher | student | ceiling |" in markdown
    for part in ("all", "right", "wrong"):
        assert f"| {part} | 0.600 | 0.400 |" in markdown
    assert ">if wrong</text>" in (tmp_path / "figures/agreement.svg").read_text()


def test_agreement_of_one_job_has_its_own_intervals_and_an_undefined_one_its_reason(fake: Any, tmp_path: Path) -> None:
    none = {f"agreement__student__weak_wrong{end}": None for end in ("", "_lo", "_hi")}
    fake.add(**{**AGREEMENT, **none})
    write_page(fake.root, tmp_path)
    markdown = (tmp_path / "table.md").read_text()
    assert "| right | 0.600 [0.500, 0.700] | 0.400 [0.300, 0.500] |" in markdown
    assert "| wrong | –¹ | 0.400 [0.300, 0.500] |" in markdown


def test_jobs_from_before_agreement_was_measured_are_counted(fake: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        fake.add(seed=seed, **(AGREEMENT if seed else {}))
    write_page(fake.root, tmp_path)
    assert "| all | 0.600 (1 null¹)" in (tmp_path / "table.md").read_text()


def test_curves_are_read_with_what_they_say(fake: Any) -> None:
    add_watched(fake, 0)
    add_watched(fake, 1, by="labels")
    fake.add("unwatched", seed=5)
    watched, found = curves.read(results.load(fake.root), fake.root)
    assert list(watched["id"]) == list(found) == ["job-001", "job-002"]
    assert list(watched["curve/kept"]) == pytest.approx([2.0, 0.5])
    assert list(watched["curve/gap"]) == pytest.approx([0.2, 0.2])
    assert list(watched["curve/kept_truth"]) == pytest.approx([0.7, 0.775])
    assert list(watched["curve/best"]) == pytest.approx([0.775, 0.775])  # the first look is .8
    assert list(found["job-001"].epochs) == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_curves_of_a_group_are_one_panel_whatever_their_looks(fake: Any) -> None:
    add_watched(fake, 0, looks=5)
    add_watched(fake, 1, rises_to=0.7, looks=9)
    watched, found = curves.read(results.load(fake.root), fake.root)
    (axes,) = curves.draw(watched, found, []).axes
    labels, _, truth, _ = axes.lines  # each followed by the students that were kept
    assert list(labels.get_ydata())[-1] == pytest.approx(0.8)  # the mean of .9 and .7
    assert list(truth.get_ydata()) == pytest.approx([0.8 - 0.1 * n / 8 for n in range(9)])
    assert "gap at the end 0.100 [−1.000, 1.000]" in figures.to_svg("curves", curves.draw(watched, found, []))


def test_a_watched_job_has_its_curve_on_the_page(fake: Any, tmp_path: Path) -> None:
    add_watched(fake)
    assert curves.TITLE in read(write_page(fake.root, tmp_path)).text
    assert "| gap, last | 0.200 |" in (tmp_path / "table.md").read_text()
    frame = results.load(fake.root)
    assert frame["stopping/truth"].iloc[0] == pytest.approx(0.7)


def test_many_groups_show_the_first_and_say_so(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        add_watched(fake, seed)
    watched, found = curves.read(results.load(fake.root), fake.root)
    monkeypatch.setattr(curves, "MOST", 2)
    figure = curves.draw(watched, found, ["seed"])
    assert len(figure.axes) == 2
    assert "(the first 2 of 3 groups)" in figures.to_svg("curves", figure)


def test_jobs_that_nobody_watched_have_no_curve(fake: Any, tmp_path: Path) -> None:
    fake.add()
    (job,) = read_jobs(fake.root)
    assert records.curve(job, Store(fake.root), records.Damages()) == []
    assert curves.TITLE not in read(write_page(fake.root, tmp_path)).text


def test_legal_answers_have_a_table(fake: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        fake.add(seed=seed, legal__ceiling=1.0, legal__student=0.9 + 0.02 * seed, legal__weak=0.5)
    write_page(fake.root, tmp_path)
    markdown = (tmp_path / "table.md").read_text()
    assert "| weak | student | ceiling |\n| ---: | ---: | ---: |\n| 0.500 | 0.910 [0.783, 1.000] | 1.000 |" in markdown


def test_what_the_strong_model_knew_before_has_a_table_where_it_was_asked(fake: Any, tmp_path: Path) -> None:
    fake.add()
    write_page(fake.root, tmp_path)
    assert "Before any label" not in (tmp_path / "table.md").read_text()
    fake.add(knobs={"head": {"_target_": "w2sd.parts.words.WordHead"}}, accuracy__zero_shot=0.25)
    write_page(fake.root, tmp_path)
    markdown = (tmp_path / "table.md").read_text()
    assert "| 0.250 |" in markdown.partition("Before any label")[2]


def test_what_became_of_labels_that_were_refined_has_a_table(fake: Any, tmp_path: Path) -> None:
    job = fake.add()
    write_page(fake.root, tmp_path)
    assert "Refined labels" not in (tmp_path / "table.md").read_text()
    left = {"n/pairs": 9, "accuracy": 0.75, "kept": 0.625, "shown": 1.5}
    with Store(fake.root).writing({"kind": "refine", "key": "0123456789ab"}) as folder:
        write_json(folder / "metrics.json", left)
        write_json(folder / "runtime.json", {})
    job["stages"]["refine/student"] = {"kind": "refine", "key": "0123456789ab"}
    Store(fake.root).record(job)
    write_page(fake.root, tmp_path)
    assert "| 0.750 | 0.625 | 1.500 |" in (tmp_path / "table.md").read_text().partition("Refined labels")[2]


@pytest.mark.parametrize(("knobs", "unit"), [(ITEMS, "rows"), (PAIRS, "pairs"), ({}, "pairs")])
def test_data_with_classes_are_rows(fake: Any, tmp_path: Path, knobs: dict[str, Any], unit: str) -> None:
    fake.add(knobs=knobs, accuracy__weak=0.2, **AGREEMENT)
    text = read(write_page(fake.root, tmp_path)).text
    other = {"rows": "pairs", "pairs": "rows"}[unit]
    for said in ("95% intervals over test {}", "{} with ground truth (gt)", "test {} measured", "share of test {}"):
        assert said.format(unit) in text
        assert said.format(other) not in text
    start = {"rows": "zero", "pairs": "chance"}[unit]
    assert f"accuracy on test {unit}; bars start at {start}" in text
    assert ("Pairwise accuracy" in text) == (unit == "pairs")

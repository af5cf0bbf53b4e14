"""The page: well-formed, self-contained, the same bytes for the same store, and true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.report.writing import read, write_page

from w2sd.report import figures
from w2sd.report.estimates import Estimate, Row
from w2sd.report.results import HEADLINE

HALVES = {metric: Estimate(0.5) for metric in HEADLINE}


def test_a_page_of_one_job_says_the_result_and_how_to_get_it_again(fake: Any, tmp_path: Path) -> None:
    job = fake.add(seed=3)
    reader = read(write_page(fake.root, tmp_path / "out"))
    assert "recovered 62% [55, 70] of the gap between weak teacher (0.787) and ceiling (0.996)." in reader.text
    for part in (
        "w2sd experiment=demo seed=3",
        job["compare"],
        "22.5 s",
        "dropped: equal sides",
        "fit.lr",
        "1e-05",
        "Example CPU",
        "2.0.0",
        "gain_mcnemar_p",
    ):
        assert part in reader.text


def test_a_page_of_several_jobs_has_means_and_every_job(sweep: Any, tmp_path: Path) -> None:
    reader = read(write_page(sweep.root, tmp_path / "out"))
    assert "Over 2 settings (6 jobs), the student recovered from 25% [−39, 89] (conflict Explicit)" in reader.text
    assert "Means by conflict" in reader.text
    assert "0.250 [−0.385, 0.885] (1 null¹)" in reader.text
    assert (tmp_path / "out/groups.csv").exists()


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_loaded_from_elsewhere_and_ids_are_unique(sweep: Any, tmp_path: Path, several: bool) -> None:
    page = write_page(sweep.root, tmp_path / "out", job=None if several else "job-001")
    reader = read(page)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)
    assert len(reader.ids) == len(set(reader.ids))
    urls = set(re.findall(r"https?://[^\"' )]+", page.read_text()))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses to load
    assert not re.search(r"url\((?!#)|@import", page.read_text())


def test_what_users_write_is_escaped(fake: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$x$"
    for seed in (0, 1):
        fake.add(f"<b>{seed}", seed=seed, overrides=[f"data.path={evil}"], knobs={"data": {"path": evil + str(seed)}})
    page = write_page(fake.root, tmp_path / "out")
    reader = read(page)
    assert "script" not in reader.tags
    assert "b" not in reader.tags
    assert evil in reader.text
    assert "script" not in read(write_page(fake.root, tmp_path / "one", job="job-001")).tags


def test_the_same_store_gives_the_same_bytes(sweep: Any, tmp_path: Path) -> None:
    def contents(out: Path) -> dict[str, bytes]:
        write_page(sweep.root, out)
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second
    figures = {f"figures/{name}.{form}" for name in ("accuracy", "pgr") for form in ("svg", "png")}
    assert set(first) - {".lock"} == {"index.html", "results.csv", "table.md", "groups.csv", *figures}


def test_an_image_is_drawn_again_only_with_its_drawing(sweep: Any, tmp_path: Path, monkeypatch: Any) -> None:
    write_page(sweep.root, tmp_path)
    image, drawing = tmp_path / "figures/pgr.png", tmp_path / "figures/pgr.svg"
    right = image.read_bytes()
    drawn: list[str] = []
    to_png = figures.to_png
    monkeypatch.setattr(figures, "to_png", lambda name, figure: drawn.append(name) or to_png(name, figure))
    write_page(sweep.root, tmp_path)
    assert drawn == []
    image.unlink()
    write_page(sweep.root, tmp_path)
    drawing.write_text("of an earlier report")
    write_page(sweep.root, tmp_path)
    assert (drawn, image.read_bytes()) == (["pgr", "pgr"], right)


def test_a_report_on_fewer_jobs_leaves_no_groups_behind(sweep: Any, tmp_path: Path) -> None:
    write_page(sweep.root, tmp_path)
    write_page(sweep.root, tmp_path, job="job-001")
    assert not (tmp_path / "groups.csv").exists()


def test_jobs_left_out_are_told(sweep: Any, tmp_path: Path) -> None:
    gone = json.loads((sweep.root / "jobs/job-001.json").read_text())["compare"]
    shutil.rmtree(sweep.root / f"artifacts/compare-{gone}")
    assert "from 5 jobs in the store; 1 more left out" in read(write_page(sweep.root, tmp_path)).text


def test_far_and_missing_values_are_drawn(fake: Any, tmp_path: Path) -> None:
    for seed, pgr in enumerate((30.0, -30.0, None)):
        fake.add(knobs={"alpha": seed}, overrides=[f"alpha={seed}"], pgr=pgr, accuracy__student=0.3)
    assert "30.0" in read(write_page(fake.root, tmp_path)).text


def test_a_figure_of_very_many_rows_shows_the_first_and_says_so() -> None:
    drawn = figures.draw([Row({"alpha": str(n)}, {**HALVES, "pgr": Estimate(n / 300)}) for n in range(300)], "pairs")
    assert "(the first 48 of 300 rows)" in figures.to_svg("pgr", drawn["pgr"])


def test_a_long_heading_has_two_lines() -> None:
    settings = {f"a_long_name_{n}": f"a_long_value_{n}" for n in range(4)}
    drawn = figures.draw([Row({**settings, "n": n}, HALVES) for n in "ab"], "pairs")
    svg = figures.to_svg("pgr", drawn["pgr"])
    lines = [line for line in re.findall(r">([^<>]*)</text>", svg) if "long" in line]
    assert len(lines) == 4
    assert max(map(len, lines)) <= figures.SMALL_LONG

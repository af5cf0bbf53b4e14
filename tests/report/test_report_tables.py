"""Tables, letter by letter."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from w2sd.report import estimates, results, tables


def test_the_headline_of_one_job(fake: Any) -> None:
    fake.add(seed=1)
    assert tables.to_markdown(tables.headline(results.load(fake.root))) == (
        "experiment = demo · seed = 1 · 95% intervals over test pairs\n\n"
        "|  | value [95% interval] |\n"
        "| --- | ---: |\n"
        "| accuracy, weak teacher | 0.787 [0.774, 0.800] |\n"
        "| accuracy, student | 0.917 [0.908, 0.925] |\n"
        "| accuracy, ceiling | 0.996 [0.993, 0.998] |\n"
        "| gain, student over teacher | 0.130 [0.115, 0.144] |\n"
        "| PGR | 0.620 [0.551, 0.700] |\n"
    )


def test_several_jobs_with_a_null_and_its_reason(sweep: Any) -> None:
    table = tables.headline(results.load(sweep.root), ["pgr"])
    assert table.above == "experiment = pair · 95% intervals over test pairs"
    assert table.columns == ("conflict", "seed", "PGR")
    assert table.rows == (
        ("Explicit", "0", "0.200 [0.120, 0.280]"),
        ("Explicit", "1", "0.300 [0.220, 0.380]"),
        ("Explicit", "2", "–¹"),
        ("NoConflict", "0", "0.500 [0.420, 0.580]"),
        ("NoConflict", "1", "0.600 [0.520, 0.680]"),
        ("NoConflict", "2", "0.700 [0.620, 0.780]"),
    )
    assert table.notes == ("¹ PGR: the ceiling (0.780) is not above the weak teacher (0.787)",)


def test_a_gap_within_its_standard_error_is_said(fake: Any) -> None:
    fake.add(pgr=None, pgr_gap=0.004, pgr_gap_se=0.006)
    (note,) = tables.headline(results.load(fake.root)).notes
    assert note == "¹ PGR: the gap between weak teacher and ceiling (0.004) is within one standard error (0.006)"


def test_means_leave_nulls_out_and_count_them(sweep: Any) -> None:
    table = tables.grouped(results.load(sweep.root), ["conflict"], ["pgr", "accuracy/weak"])
    assert table.columns == ("conflict", "n", "PGR", "weak")
    # 0.25 ± 12.706 × 0.0707 / √2 and 0.6 ± 4.303 × 0.1 / √3; the teacher is shared: no spread, no interval
    assert table.rows == (
        ("Explicit", "3", "0.250 [−0.385, 0.885] (1 null¹)", "0.787"),
        ("NoConflict", "3", "0.600 [0.352, 0.848]", "0.787"),
    )


def test_a_group_of_one_has_no_interval_and_what_two_experiments_share_counts_once(fake: Any) -> None:
    fake.add("one", pgr=0.5)
    fake.add("two")
    (row,) = tables.grouped(results.load(fake.root), [], ["pgr"]).rows
    assert row == ("1", "0.500")


@pytest.mark.parametrize("shared", [{"data": {"world_seed": 1}}, {"data": {"split_seed": 1}}, {"teacher_seed": 1}])
def test_seeds_that_share_what_made_their_teachers_are_one_unit(fake: Any, shared: dict[str, Any]) -> None:
    """The interval is over the means of units; what has no value is counted by job all the same."""
    for knobs, values in (({}, (0.5, None, 0.7)), (shared, (0.8, 1.0, 0.6))):
        for seed, value in enumerate(values):
            fake.add(seed=seed, knobs=knobs, pgr=value)
    (row,) = estimates.per_group(results.load(fake.root), ["pgr"], [])
    units = estimates.over_jobs("pgr", [estimates.Estimate(0.6), estimates.Estimate(0.8)])
    assert row.estimates["pgr"][:3] == pytest.approx(units[:3])
    assert (row.n, row.estimates["pgr"].n_null) == (6, 1)


@pytest.mark.parametrize(("n", "shows_jobs"), [(12, True), (13, False)])
def test_a_few_repetitions_are_shown_one_by_one_and_many_by_their_mean(
    fake: Any, n: int, shows_jobs: bool, capsys: Any
) -> None:
    for seed in range(n):
        fake.add(seed=seed)
    tables.print_table(results.load(fake.root))
    text = capsys.readouterr().out
    assert ("over test" in text) == shows_jobs
    assert "means over jobs" in text


def test_knobs_equal_in_all_rows_stand_above(sweep: Any) -> None:
    frame = results.load(sweep.root)
    table = tables.grouped(frame, ["teacher_seed", "conflict"], ["pgr"])
    assert table.above.startswith("experiment = pair · teacher_seed = 0 · means")
    assert table.columns == ("conflict", "n", "PGR")


def test_csv_keeps_all_digits(sweep: Any) -> None:
    rows = estimates.per_group(results.load(sweep.root), ["pgr"], ["conflict"])
    lines = tables.to_csv(rows, ["pgr"]).splitlines()
    assert lines[0] == "conflict,n,pgr,pgr_lo,pgr_hi,pgr_n_null"
    assert lines[1].startswith("Explicit,3,0.25,-0.385310236")
    assert lines[1].endswith(",1")


def test_numbers_sort_as_numbers(fake: Any) -> None:
    for alpha in (10.0, 9.0, 0.5):
        fake.add(knobs={"alpha": alpha}, overrides=[f"alpha={alpha}"])
    assert [row[0] for row in tables.headline(results.load(fake.root)).rows] == ["0.5", "9.0", "10.0"]


def test_markdown_escapes_bars(fake: Any) -> None:
    for text in ("a|b", "c"):
        fake.add(knobs={"text": text}, overrides=[f"text={text}"])
    assert "| a\\|b |" in tables.to_markdown(tables.headline(results.load(fake.root)))


def test_a_file_gets_whole_lines(sweep: Any, capsys: Any) -> None:
    tables.print_table(results.load(sweep.root))
    text = capsys.readouterr().out
    assert "0.787 [0.774, 0.800]   0.917 [0.908, 0.925]   0.996 [0.993, 0.998]" in text
    assert "means over jobs, 95% t intervals" in text
    assert "\x1b" not in text


def test_a_narrow_terminal_gets_intervals_under_their_values(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    tables.show(tables.headline(results.load(sweep.root)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].split() == ["Explicit", "0", "0.787", "0.917", "0.996", "0.130", "0.200"]
    assert lines[4].split() == ["[0.774,", "[0.908,", "[0.993,", "[0.115,", "[0.120,"]
    assert lines[5].split() == ["0.800]", "0.925]", "0.998]", "0.144]", "0.280]"]

"""The sizes of studies that are tabled, and which of them stands for a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2sd.metrics.detectable import Size, size_at_most

ROWS = {(1, 4): "1,4,3,40,0.5", (1, 8): "1,8,1,40,0.25", (2, 4): "2,4,0,40,", (5, 4): "5,4,2,20,0.125"}


@pytest.mark.parametrize(
    ("study", "tabled"),
    [((1, 3), None), ((1, 4), (1, 4)), ((1, 20), (1, 8)), ((2, 6), (2, 4)), ((2, 8), (2, 4)), ((9, 9), (5, 4))],
)
def test_the_size_is_the_largest_that_is_no_larger(
    tmp_path: Path, study: tuple[int, int], tabled: tuple[int, int] | None
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["worlds,seeds,false_alarms,null_studies,dose", *ROWS.values()]))
    found = size_at_most(*study, table)
    assert (found and found[:2]) == tabled
    if tabled == (2, 4):
        assert found == Size(2, 4, 0, 40, None)


def test_the_table_of_the_package_is_there_and_can_be_read() -> None:
    assert size_at_most(0, 0) is None

"""Files with a fault anywhere: each is refused, or read with every line in a row of its own and no cell made up."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.data.reading import Rows, write

from w2sd.data.reading import read
from w2sd.data.sources import Files
from w2sd.errors import Refused
from w2sd.predictions import read_predictions

N = 100  # faults in each format
BYTES = [b'"', b",", b"\n", b"\r", b"\\", b"\0", b"\xff", b"{", b"}", b"[", b"]", b":", b"9", b"e", b"-", b" ", b'""']
BREAK = re.compile("\r\n|\r|\n")
VALUES: list[Any] = [None, True, -1, 1e19, 10**400, float("nan"), float("inf"), "", "x", "\ud800", [], {}, [[1]]]


def rows(random: Random) -> Rows:
    """Rows that are pairs and predictions: their cells need quotes, and none holds a line break."""
    words = ["plain", "two, words", 'said "so"', " ünïcødé 漢字", "C:\\n"]
    return [
        {"id": f"{n}", "margin": random.gauss(0, 2), "n_chosen": n, "known": n % 2 == 0, "prompt": f"p {n} {word}"}
        | {"chosen": f"{word} {n}", "rejected": f"{n} no"}
        for n in range(40)
        for word in [words[n % 5]]
    ]


def damaged(data: bytes, random: Random) -> bytes:
    """The bytes with one fault: some lost, some more, others, some twice, or the end lost."""
    at = random.randrange(len(data))
    end = at + random.choice([1, 1, 1, 2, 30])
    new = random.choice([*BYTES, bytes([random.randrange(256)])])
    faults = [data[:at] + data[end:], data[:at] + new + data[at:], data[:at] + new + data[at + 1 :]]
    return random.choice([*faults, data[:end] + data[at:], data[:at]])


def refused_knob(reader: Callable[[Path], Any], path: Path) -> str | None:
    """The place that the refusal of a file names; None where it is read."""
    try:
        reader(path)
    except Refused as refusal:
        return refusal.knob
    return None


def pairs(path: Path) -> Any:
    return Files(path=str(path)).table()


def require_justified(path: Path, data: bytes) -> None:
    """Read a text file that is not refused; no line may be lost, and no cell may say what its line does not."""
    if (knob := refused_knob(lambda path: list(read(path, "x")), path)) is not None:
        assert re.match(r"x\b", knob)
        return
    found = list(read(path, "x"))
    if ".csv" not in path.name:
        lines = data.decode("utf-8-sig").split("\n")
        filled = [(f"x:{number}", line) for number, line in enumerate(lines, 1) if line.strip(" \t\r")]
        assert str(found) == str([(place, json.loads(line)) for place, line in filled])
        return
    lines = BREAK.split(data.decode("utf-8-sig"))
    n_breaks = 0
    for place, row in found:
        number = int(place.removeprefix("x:"))
        breaks = sum(len(BREAK.findall(cell)) for cell in row.values())
        record = "\n".join(lines[number - 1 : number + breaks])
        n_breaks += breaks
        for cell in (BREAK.sub("\n", cell) for cell in row.values()):
            assert cell in record or cell.replace('"', '""') in record
    assert n_breaks <= 1  # a fault can put one into a cell
    assert len(found) + n_breaks == sum(map(bool, lines)) - 1


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
def test_a_damaged_file_is_refused_or_means_what_it_says(tmp_path: Path, suffix: str) -> None:
    random = Random(0)
    path = tmp_path / f"x{suffix}"
    for _ in range(N):
        write(path, rows(random))
        whole = path.read_bytes()
        text = gzip.decompress(whole) if suffix.endswith(".gz") and random.random() < 0.8 else None
        data = damaged(whole if text is None else text, random)
        path.write_bytes(data if text is None else gzip.compress(data))
        if text is not None or suffix in (".jsonl", ".csv"):
            require_justified(path, data)
        for reader in (read_predictions, pairs):
            knob = refused_knob(reader, path)
            assert knob is None or knob.startswith(("data.path", str(path)))


@pytest.mark.parametrize("reader", [read_predictions, pairs])
def test_a_value_of_any_type_is_read_or_refused_with_its_line(tmp_path: Path, reader: Any) -> None:
    random, path, n_refused = Random(0), tmp_path / "x.jsonl", 0
    for _ in range(N):
        table = rows(random)
        number, name = random.randrange(len(table)), random.choice(list(table[0]))
        table[number][name] = random.choice(VALUES)
        write(path, table)
        if (knob := refused_knob(reader, path)) is not None:
            assert knob.partition(": ")[0] == f"{path}:{number + 1}"
            n_refused += 1
    assert n_refused > N / 10

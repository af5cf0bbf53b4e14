"""Tokens on disk: the same as when they are made, found by everything that they are made of, and never trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from w2sd.data import token_cache
from w2sd.data.pairs import SPLITS, Pair, Table, read
from w2sd.data.text import Encoded, Row, encode_rows, gather
from w2sd.data.token_cache import load, save
from w2sd.identity import digest
from w2sd.stages import encoding
from w2sd.stages.encoding import encode_for


@dataclass(frozen=True)
class Few:
    """A source of a few rows, of which some are cut and some dropped."""

    VERSION: ClassVar[int] = 1
    word: str = "bread"
    max_tokens: int = 40
    long: str = "drop"
    append_eos: str = "never"

    def table(self) -> Table[Pair]:
        made = []
        for n in range(12):
            triple = (f"Why {n}" + " not" * n, f" Mix {self.word}" + " and" * n, " No")
            made.append(Pair(digest(*triple), str(n), SPLITS[n % 3], "harmless", *triple))
        return Table(made, {})


FEW = Few()
FAMILY = "gpt2"
ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9).map(lambda some: np.array(some, np.int32))
rows_of_tokens = st.lists(st.none() | st.builds(Row, ids, ids, ids, st.booleans(), st.booleans()), max_size=9)


def same(one: Any, other: Any) -> bool:
    """Whether two rows, or two encodings, are the same."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@settings(max_examples=25)
@given(rows_of_tokens)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Row | None]) -> None:
    path = tmp_path_factory.mktemp("tokens") / "new" / "file.safetensors"
    assert load(path) is None
    save(path, rows)
    found = load(path)
    assert found is not None
    assert same(found, rows)
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger=token_cache.__name__)
    return lambda: [record.getMessage() for record in caplog.records]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def other(content: bytes) -> bytes:
    return b"not tokens at all"


@pytest.mark.parametrize("damage", [cut, flipped, other])
def test_a_damaged_file_is_told_of_and_made_again(
    damage: Callable[[bytes], bytes], tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    whole = encoded(tmp_path)
    [path] = tmp_path.iterdir()  # one split was read
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert same(encoded(tmp_path), whole)
    [line] = said()
    assert line.startswith(f"{path} cannot be read; its tokens are made again (")
    assert path.read_bytes() == sound


@pytest.mark.parametrize(
    ("sizes", "said"),
    [([[1, 1, 9]], [[0, 0]]), ([[1, 1, -1]], [[0, 0]]), ([[1, 1]], [[0, 0]]), ([[1, 1, 1]], [[0]]), ([[1, 1, 1]], [])],
)
def test_what_is_no_rows_of_tokens_is_not_taken_for_some(tmp_path: Path, sizes: Any, said: Any) -> None:
    """A digest of its own does not make it one."""
    arrays = {"ids": np.arange(3, dtype=np.int32)}
    arrays |= {"sizes": np.array(sizes, np.int32), "said": np.array(said, np.int32)}
    save_file(arrays, tmp_path / "file", {"digest": token_cache._digest(arrays)})
    assert load(tmp_path / "file") is None


def test_a_folder_that_takes_no_files_costs_no_result(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    (tmp_path / "taken").write_text("no folder")
    assert same(encoded(tmp_path / "taken"), encoded(None))
    [line] = said()
    assert "cannot be written; others will make these tokens again" in line


def encoded(kept: Path | None, data: Few = FEW, family: str = FAMILY, context: int = 12) -> Encoded:
    """All rows of a split, in a process that knows none of them."""

    class Config:
        vocab_size = len(FAMILIES[family]())
        max_position_embeddings = context

    encoding._remembered.cache_clear()
    return encode_for(Config, FAMILIES[family](), data, read(data).split("w2s"), "never", kept)


def test_a_second_process_makes_no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoded(tmp_path)
    assert same(made, encoded(None))
    monkeypatch.setattr(encoding, "encode_rows", lambda pairs, *_: [] if not pairs else pytest.fail("made again"))
    assert same(encoded(tmp_path), made)


def test_a_process_encodes_no_pair_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rows a stage asks for: a subset, another order, rows that are not of the data."""
    pairs, tokenizer, seen = read(FEW).examples, FAMILIES[FAMILY](), []
    make = encoding.encode_rows

    def counted(some: list[Pair], *how: Any) -> list[Row | None]:
        seen.extend(pair.id for pair in some)
        return make(some, *how)

    class Config:
        vocab_size = len(tokenizer)

    encoding._remembered.cache_clear()
    monkeypatch.setattr(encoding, "encode_rows", counted)
    strange = pairs[0]._replace(id="strange", chosen="something else")
    for asked in (pairs[5:9], pairs[::-1], [strange, pairs[3]]):
        found = encode_for(Config, tokenizer, FEW, asked, "never")
        expected = gather(encode_rows(asked, tokenizer, FEW.max_tokens, len(tokenizer), FEW.long, continued=True))
        assert same(found, expected)
    assert len(seen) == len(set(seen)) == len(pairs) + 1


def test_the_source_of_these_tests_has_every_kind_of_row() -> None:
    found = [encoded(None), encoded(None, context=40)]
    assert found[0].truncated_prompts > 0
    assert found[0].dropped_long > 0
    assert found[1].dropped_long == 0


@pytest.mark.parametrize(("of_data", "of_model", "context"), [(40, 12, 12), (12, 40, 12), (40, None, 40), (0, 12, 12)])
def test_a_text_has_to_fit_the_model_and_the_data(of_data: int, of_model: int | None, context: int) -> None:
    config, data = SimpleNamespace(max_position_embeddings=of_model), SimpleNamespace(max_tokens=of_data)
    assert encoding.context_of(config, data) == context


def test_more_rows_than_a_process_keeps_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        vocab_size = len(FAMILIES[FAMILY]())

    pairs, seen, make = read(FEW).examples, [], encoding.encode_rows
    monkeypatch.setattr(encoding, "ROWS", len(pairs) - 1)
    monkeypatch.setattr(encoding, "encode_rows", lambda some, *how: seen.extend(some) or make(some, *how))
    encoding._remembered.cache_clear()
    first, second = (encode_for(Config, FAMILIES[FAMILY](), FEW, pairs, "never") for _ in range(2))
    assert same(first, second)
    assert seen == [*pairs, *pairs]


def test_another_text_tokenizer_or_context_has_a_file_of_its_own(tmp_path: Path) -> None:
    for n, options in enumerate([{}, {"data": Few(word="cake")}, {"family": "opt"}, {"context": 11}, {}], start=1):
        encoded(tmp_path, **options)  # type: ignore[arg-type]
        assert len(list(tmp_path.iterdir())) == min(n, 4)


def test_rows_are_known_by_their_texts_and_not_by_an_id_that_a_source_of_yours_may_give_twice() -> None:
    @dataclass(frozen=True)
    class Numbered(Few):
        """Ids that count rows."""

        def table(self) -> Table[Pair]:
            return Table([pair._replace(id=str(n)) for n, pair in enumerate(super().table().examples)], {})

    class Config:
        vocab_size, max_position_embeddings = len(FAMILIES[FAMILY]()), 12

    bread, salt = Numbered(), Numbered(word="salt")
    alone = encoded(None, salt)
    encoding._remembered.cache_clear()
    first, second = (
        encode_for(Config, FAMILIES[FAMILY](), data, read(data).split("w2s"), "never") for data in (bread, salt)
    )
    assert not same(first, alone)
    assert same(second, alone)

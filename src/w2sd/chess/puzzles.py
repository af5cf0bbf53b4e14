"""Chess puzzles as classification: a position in, the best move out, one class for every move that there can be."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from w2sd.chess import position
from w2sd.chess.position import CLASS, MOVES, START, Position, from_words, mirrored, mirrored_move, read, words
from w2sd.data import reading
from w2sd.data.balance import first
from w2sd.data.pairs import MIN_ROWS, SPLITS, Item, Table, clean_items, reasons
from w2sd.data.sources import check, part_of, split_of
from w2sd.errors import Refused, choose, require
from w2sd.identity import digest

FORMS = ("board", "moves", "fen")
BAND = 500  # of ratings: puzzles of one band are about equally hard
TOLERATED = 0.01  # the share of rows that may be bad without a warning


class Puzzle(NamedTuple):
    """One puzzle as it is put to a model: from where, by which moves, to where, and what is best there."""

    start: Position
    played: tuple[str, ...]
    reached: Position
    answer: str

    def mirrored(self) -> Puzzle:
        """The same puzzle with the colours swapped."""
        played = tuple(mirrored_move(move) for move in self.played)
        return Puzzle(mirrored(self.start), played, mirrored(self.reached), mirrored_move(self.answer))

    def text(self, form: str) -> str:
        """What a model reads. The moves of a game from the beginning are all of it; others need to know where from."""
        if form == "fen":
            return str(self.reached)
        if form == "board":
            return " ".join([*words(self.reached), *self.played[-1:]])
        is_game = self.start in GAMES
        return " ".join([*([] if is_game else words(self.start)), *self.played])


GAMES = (read(START), mirrored(read(START)))


class Bad(Exception):
    """A row that is no puzzle: the reason that it is counted under, and what is wrong with it."""


@dataclass(frozen=True)
class ChessPuzzles:
    """Puzzles from a file (CSV, JSONL or Parquet) with columns FEN, Moves and Rating, as Lichess publishes them.

    `Moves` are in UCI, with spaces between them. The first is the opponent's, which leads to the position, the second
    is the answer. A row without a FEN is a game from the beginning; its last move is the answer.

    With `orient` the side to move is always White: positions and moves of Black are turned upside down with the
    colours swapped. The rules are the same for both sides, so that a model has half as much to learn.
    """

    path: str = "$W2SD_DATA/chess/lichess_puzzles.csv.gz"
    form: str = "board"  # what a model reads: board (words) | moves (words) | fen
    orient: bool = True  # the side to move is always White
    limit: int = 0  # rows per split, after cleaning; 0 = all
    split_seed: int = 0  # which positions go where
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 128  # the longest text; it is cut from the left
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        choose("form", self.form, FORMS)
        check(self.limit, self.split_seed, self.w2s_parts, self.max_tokens)

    @property
    def classes(self) -> tuple[str, ...]:
        """The moves, in the order of labels."""
        return MOVES

    def check_installed(self) -> None:
        """Refuse to go on without the rules of chess."""
        position.library()

    def identity(self) -> dict[str, Any]:
        """What decides the rows: the content of the file, wherever it lies."""
        knobs = asdict(self)
        content = reading.content(reading.locate("data.path", knobs.pop("path")))
        return {"source": "chess_puzzles", "version": self.VERSION, "content": content, **knobs}

    def table(self) -> Table[Item]:
        """The puzzles that are in order; what is wrong with the others is counted, and told where it is much."""
        bad: dict[str, list[str]] = {"broken_fen": [], "illegal_move": [], "missing_answer": []}
        items = list(self._items(bad))
        rows, dropped = clean_items(items)
        kept = first(rows, lambda item: (item.split, item.part), lambda _: self.limit or len(rows))
        dropped = {reason: len(rows) for reason, rows in bad.items()} | dropped | {"over_limit": len(rows) - len(kept)}
        for split in SPLITS:
            found = sum(item.split == split for item in kept)
            why = reasons(dropped)
            accepted = f"at least {MIN_ROWS} puzzles for split {split}, found {found} (dropped in all: {why})"
            require(found >= MIN_ROWS, "data.path", self.path, accepted + _first(bad))
        self._tell(bad, len(items))
        return Table(kept, dropped)

    def judge(self, items: Sequence[Item], predicted: Sequence[int]) -> dict[str, float]:
        """The share of predicted moves that the rules allow."""
        legal = [
            position.is_legal(self._position(item.text), MOVES[label])
            for item, label in zip(items, predicted, strict=True)
        ]
        return {"legal": sum(legal) / len(legal)} if legal else {}

    def _items(self, bad: dict[str, list[str]]) -> Iterator[Item]:
        path = reading.locate("data.path", self.path)
        for number, (where, row) in enumerate(reading.read(path, path.name)):
            if not number:
                _check_columns(row, where)
            try:
                puzzle = solve(row)
            except Bad as reason:
                kind, detail = reason.args
                bad[kind].append(f"{where}: {detail}")
                continue
            turned = puzzle if puzzle.reached.turn == "w" else puzzle.mirrored()
            cluster = digest("chess", str(turned.reached))  # a position and its mirror image are one
            shown = turned if self.orient else puzzle
            name, split = digest("chess", str(shown.reached)), split_of(cluster, self.split_seed)
            label, stratum = CLASS[shown.answer], band(row.get("Rating"))
            part = part_of(cluster, self.w2s_parts) if split == "w2s" else 0
            yield Item(name, cluster, split, shown.text(self.form), label, stratum=stratum, part=part, where=where)

    def _tell(self, bad: dict[str, list[str]], n_good: int) -> None:
        if n_bad := sum(map(len, bad.values())):
            level = logging.WARNING if n_bad > TOLERATED * (n_bad + n_good) else logging.INFO
            message = f"{n_bad} of {n_bad + n_good} rows are no puzzles and are left out{_first(bad)}"
            logging.getLogger(__name__).log(level, "data.path: %s", message)

    def _position(self, text: str) -> Position:
        """The position that a text leads to."""
        if self.form == "fen":
            return read(text)
        found = text.split()
        n = next((n for n, word in enumerate(found) if word in CLASS), len(found))
        if self.form == "board":
            return from_words(found[:n])
        begun_by_black = self.orient and len(found) % 2 == 1  # as a mirror shows it
        on = position.board(from_words(found[:n]) if n else GAMES[begun_by_black])
        for move in found[n:]:
            position.play(on, move)
        return position.position(on)


def _check_columns(row: Mapping[str, Any], where: str) -> None:
    """Refuse names in other letters: every puzzle would have no answer, begin like a game, or be as hard as any."""
    for column in ("FEN", "Moves", "Rating"):
        meant = next((name for name in row if name.lower() == column.lower()), None)
        if column not in row and (meant or column == "Moves"):
            raise Refused(where, list(row), f"a column {column!r}", nearest=meant)


def solve(row: Mapping[str, Any]) -> Puzzle:
    """The puzzle of a row."""
    given = str(row.get("Moves") or "").split()
    fen = str(row.get("FEN") or "").strip()
    n_played = 1 if fen else len(given) - 1
    if len(given) < 2:
        raise Bad("missing_answer", f"Moves are {row.get('Moves')!r}")
    try:
        start = read(fen or START)
        on = position.board(start)
    except ValueError as error:
        raise Bad("broken_fen", f"{fen!r}: {error}") from error
    try:
        played = tuple([position.play(on, move) for move in given[:n_played]])
        reached = position.position(on)
        return Puzzle(start, played, reached, position.play(on, given[n_played]))
    except ValueError as error:
        raise Bad("illegal_move", str(error)) from error


def band(rating: Any) -> str:
    """The stratum of a rating: how hard a puzzle is, or "" where nobody has said.

    >>> band("1830"), band(None)
    ('1500-1999', '')
    """
    try:
        low = int(rating) // BAND * BAND
    except (TypeError, ValueError):
        return ""
    return f"{low}-{low + BAND - 1}"


def _first(bad: dict[str, list[str]]) -> str:
    """The first bad row of each kind."""
    return "".join(f"; {len(rows)} {kind}, first {rows[0]}" for kind, rows in bad.items() if rows)

"""Refusals: the nearest word is one that may have been meant, or none."""

from __future__ import annotations

import pytest

from w2sd.errors import nearest


@pytest.mark.parametrize(
    ("said", "known", "meant"),
    [
        ("prg", ("accuracy", "pgr"), "pgr"),
        ("sett", ("set", "seed"), "set"),
        ("fen", ("FEN", "Moves"), "FEN"),
        ("Attn.Q_proj", ("mlp", "self_attn.q_proj"), "self_attn.q_proj"),
        ("nowhere", ("other", "model"), None),
        ("maybe", ("yes", "no"), None),
        (-1, ("0", "1"), None),
        (0, ("c0", "c1"), None),
        ("", ("a", "b"), None),
    ],
)
def test_the_nearest_word_shares_most_letters(said: object, known: tuple[str, ...], meant: str | None) -> None:
    assert nearest(said, known) == meant

"""Refusals: one sentence, and the nearest word is one that may have been meant, or none."""

from __future__ import annotations

import pytest

from w2sd.errors import Refused, nearest


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


def test_a_refusal_is_one_sentence_with_the_knob_the_value_what_is_accepted_and_the_nearest_word() -> None:
    said = str(Refused("lr", "low\nlow", "a number\nabove 0", nearest="slow").under("fit"))
    assert said == "fit.lr: 'low\\nlow' is not accepted; expected a number above 0; did you mean 'slow'?"
    assert str(Refused("lr", 0, "a number")) == "lr: 0 is not accepted; expected a number"

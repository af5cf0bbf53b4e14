"""Signs of degeneration in what a language model writes: length, an end, repetition, sameness."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

GRAM = 4  # tokens: shorter stretches come again in good text as well


def figures(answers: Sequence[Sequence[Hashable]], ended: Sequence[bool]) -> dict[str, float]:
    """What is told of some answers, each a list of tokens without its end token.

    `length` is the mean number of tokens, `ended` the share of answers that the model ended by itself, `repetition` the
    mean share of an answer that it had written before, `distinct` the share of answers that are not one another's
    copies.

    >>> figures([["no"] * 8, ["no"] * 8, list("abcdef")], [False, False, True])["distinct"]
    0.6666666666666666
    """
    n = len(answers)
    return {
        "length": sum(map(len, answers)) / n,
        "ended": sum(ended) / n,
        "repetition": sum(map(repetition, answers)) / n,
        "distinct": len({tuple(answer) for answer in answers}) / n,
    }


def repetition(tokens: Sequence[Hashable]) -> float:
    """The share of an answer's 4-grams that occurred in it before; 0 where it is too short to have one.

    >>> repetition("abcdabcd"), repetition("abcdefgh"), repetition("abc")
    (0.2, 0.0, 0.0)
    """
    grams = [tuple(tokens[at : at + GRAM]) for at in range(len(tokens) - GRAM + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0

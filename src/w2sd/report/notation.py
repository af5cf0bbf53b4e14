"""How the report writes a number: one form for tables, figures and prose."""

from __future__ import annotations

import json
from typing import Any

NOTHING = "–"


def number(value: float | str | None) -> str:
    """Three decimals, fewer where the whole part says enough; integers are counts; nothing is a dash.

    >>> number(0.7871), number(-0.2), number(-0.0001), number(123.456), number(4000), number(None)
    ('0.787', '−0.200', '0.000', '123.5', '4,000', '–')
    """
    if value is None or isinstance(value, str):
        return value or NOTHING
    return _signed(f"{value:,d}") if isinstance(value, int) else _decimal(value, _decimals(value))


def estimate(name: str, value: float | str | None, lo: float | None = None, hi: float | None = None) -> str:
    """A value with its interval, if it has one; a p-value (`…_p`) never reads as zero.

    >>> estimate("pgr", 0.6204, 0.551, 0.7), estimate("flips", 5.86, 0.46, 11.24), estimate("gain_mcnemar_p", 1e-9)
    ('0.620 [0.551, 0.700]', '5.9 [0.5, 11.2]', '<0.001')
    """
    if name.endswith("_p") and isinstance(value, float) and value < 0.0005:
        return "<0.001"
    if lo is None or hi is None or value is None or isinstance(value, str):
        return number(value)
    decimals = min(map(_decimals, (value, lo, hi)))
    middle = number(value) if isinstance(value, int) else _decimal(value, decimals)
    return f"{middle} [{_decimal(lo, decimals)}, {_decimal(hi, decimals)}]"


def flips(value: float | None, lo: float | None = None, hi: float | None = None) -> str:
    """A mean number of flips with its interval: tenths say enough.

    >>> flips(5.864, -0.46, 11.24), flips(115.0), flips(None)
    ('5.9 [−0.5, 11.2]', '115.0', '–')
    """
    if value is None:
        return NOTHING
    interval = "" if lo is None or hi is None else f" [{_decimal(lo, 1)}, {_decimal(hi, 1)}]"
    return f"{_decimal(value, 1)}{interval}"


def p_value(p: float) -> str:
    """A p value for prose; it never reads as zero.

    >>> p_value(0.0304), p_value(1e-9)
    ('p = 0.030', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.0005 else f"p = {number(float(p))}"


def percent(value: float, lo: float | None = None, hi: float | None = None) -> str:
    """A share in whole per cent with its interval, for sentences.

    >>> percent(0.62, 0.551, 0.7), percent(-0.1)
    ('62% [55, 70]', '−10%')
    """
    interval = "" if lo is None or hi is None else f" [{_whole(lo)}, {_whole(hi)}]"
    return f"{_whole(value)}%{interval}"


def count(n: int, noun: str) -> str:
    """So many of something.

    >>> count(1, "job"), count(12, "job")
    ('1 job', '12 jobs')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def knob(value: Any) -> str:
    """A configuration value as one would type it.

    >>> knob(True), knob(1e-5), knob(2.0), knob(None), knob([0, 1]), knob("soft")
    ('true', '1e-05', '2.0', 'null', '[0, 1]', 'soft')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def duration(seconds: float | None) -> str:
    """A stretch of time in its natural unit.

    >>> duration(0.04), duration(4.25), duration(125), duration(7260), duration(None)
    ('0.0 s', '4.2 s', '2 min 05 s', '2 h 01 min', '–')
    """
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def parameters(n: float) -> str:
    """The size of a model.

    >>> parameters(9985), parameters(124_439_808), parameters(7.24e9), parameters(640)
    ('10k', '124M', '7.2B', '640')
    """
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= unit * 0.9995:
            return f"{n / unit:.{int(n < 9.95 * unit)}f}{letter}"
    return str(round(n))


def size(n_bytes: int) -> str:
    """A number of bytes in its natural unit.

    >>> size(980), size(1_540_000)
    ('980 B', '1.5 MB')
    """
    amount, units = float(n_bytes), ["B", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{n_bytes} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def _decimals(value: float) -> int:
    return 3 if abs(value) < 10 else 1


def _decimal(value: float, decimals: int) -> str:
    return _signed(f"{round(value, decimals) + 0.0:,.{decimals}f}")  # + 0.0 turns -0.0 into 0.0


def _whole(share: float) -> str:
    return _signed(f"{round(100 * share):,d}")


def _signed(text: str) -> str:
    return text.replace("-", "−")

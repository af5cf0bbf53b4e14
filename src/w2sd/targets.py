"""What supervisions make their targets of: preferences, draws, errors. An option a column, an example a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from w2sd.supervision import Lesson

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def hardened(p_NK: Floats) -> Floats:
    """All of each distribution on the option that it prefers, in equal shares where several are exactly as likely."""
    preferred_NK = p_NK == p_NK.max(axis=1, keepdims=True)
    return preferred_NK / preferred_NK.sum(axis=1, keepdims=True)


def votes(p_NK: Floats, noise: Floats, samples: int) -> Ints:
    """How often each option is the answer in so many draws, [N, K]; the noise of a row decides its draws.

    >>> import numpy as np
    >>> votes(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.2, 0.7]), 10)
    array([[ 0, 10],
           [10,  0]])
    """
    import numpy as np

    draws = [
        np.random.default_rng(int(seed * 2**53)).multinomial(samples, p) for p, seed in zip(p_NK, noise, strict=True)
    ]
    return np.array(draws, dtype=np.int64).reshape(p_NK.shape)


def agreed(shares_NK: Floats, threshold: float) -> Floats:
    """The answer with the largest share, if that is large enough; else NaN."""
    import numpy as np

    enough = shares_NK.max(axis=1, keepdims=True) >= threshold
    return np.where(enough, certain(shares_NK.argmax(axis=1), shares_NK.shape[1]), np.nan)


def p_correct(lesson: Lesson) -> Floats:
    """The teacher's confidence in the truth."""
    assert lesson.truth is not None
    return lesson.p_NK[range(len(lesson.truth)), lesson.truth]


def certain(options: Ints, n_options: int) -> Floats:
    """Targets that leave no doubt."""
    import numpy as np

    return np.eye(n_options)[options]


def misled(lesson: Lesson, order: Floats, rate: float | None) -> Floats:
    """The truth, wrong on a share of the examples or, without a rate, on as many as the teacher is.

    Those are first in `order`, ties in the order of the noise. Of several wrong options they take turns.
    """
    import numpy as np

    assert lesson.truth is not None
    n_options = lesson.p_NK.shape[1]
    n_wrong = (p_correct(lesson) < lesson.p_NK.max(axis=1)).sum() if rate is None else round(rate * len(order))
    erring = np.lexsort((lesson.noise, order))[: int(n_wrong)]
    said = lesson.truth.copy()
    said[erring] = (said[erring] + 1 + np.arange(len(erring)) % (n_options - 1)) % n_options
    return certain(said, n_options)

"""What a model is pretrained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Corpus(NamedTuple):
    """Documents of equal length; `weights` is how much predicting the token at the same place counts in the loss."""

    tokens: NDArray[np.int32]  # [n, length]
    weights: NDArray[np.float32]  # [n, length]

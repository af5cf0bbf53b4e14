"""Activation checkpointing: memory for a third more computation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from w2sd.errors import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep what goes into each layer, and compute what is inside it again on the way back.

    It acts in train mode alone: in eval mode, which transformers hands models over in, it would silently be off.
    """
    if not model.supports_gradient_checkpointing:
        raise Refused("trainer.checkpointing", True, f"false: {type(model).__name__} cannot compute its layers again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # later versions of transformers 5 have another name for it too
        # the other way of torch needs inputs with gradients, which frozen embeddings do not give
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

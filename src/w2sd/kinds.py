"""Which kinds of stages there are. To add one: a line here, `stages/<kind>.py`, and who asks for it in `pipeline/`."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """What is known of a kind of stages before any of them runs."""

    version: int  # declared; a change in what a kind computes bumps it and gets a line in the CHANGELOG
    is_shared: bool = False  # several devices make it faster
    trains: bool = False  # it has training curves, and in W&B a run of its own


# Results of an older version stay valid for what they are: the version is part of every key.
KINDS = {
    "pretrain": Kind(1, is_shared=True, trains=True),
    "generative": Kind(1, is_shared=True, trains=True),
    "sft": Kind(3, is_shared=True, trains=True),
    "reference": Kind(2, is_shared=True),
    "features": Kind(2, is_shared=True),
    "zero_shot": Kind(1),
    "train": Kind(2, is_shared=True, trains=True),
    "label": Kind(1, is_shared=True),
    "refine": Kind(2),
    "evaluate": Kind(2, is_shared=True),
    "generate": Kind(1),
    "compare": Kind(5),
}

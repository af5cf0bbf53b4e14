"""A full disk is known, whichever library meets it, and the stage is made when there is room."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from w2sd.atomic import write_json
from w2sd.models.heads import PolicyModel
from w2sd.pipeline.store import Store, is_full
from w2sd.stages.callbacks import AtomicCheckpoints

LIMIT = 2000  # bytes of a file
WORDS = Tokenizer(WordLevel({f"word{n}": n for n in range(1000)}, "word0"))


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow beyond a limit: the system stops to write in the middle of one, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=8, vocab_size=1000))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "json": lambda out: write_json(out / "metrics.json", list(range(1000))),
    "bytes": lambda out: (out / "samples.jsonl").write_bytes(b"x" * 10 * LIMIT),
    "parquet": lambda out: pq.write_table(pa.table({"x": np.random.default_rng(0).random(2000)}), out / "x.parquet"),
    "safetensors of NumPy": lambda out: safetensors.numpy.save_file({"x": np.zeros(1000)}, out / "x.safetensors"),
    "safetensors of torch": lambda out: safetensors.torch.save_file({"x": torch.zeros(1000)}, out / "x.safetensors"),
    "tokenizer": lambda out: PreTrainedTokenizerFast(tokenizer_object=WORDS).save_pretrained(out),
    "model": lambda out: PolicyModel(model()).save(out, PreTrainedTokenizerFast(tokenizer_object=WORDS)),
    "checkpoint": lambda out: AtomicCheckpoints().save_checkpoint({"x": torch.zeros(1000)}, out / "last.ckpt"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_is_known_from_any_library(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)

    def commit() -> None:
        with store.writing({"kind": "train", "key": "0123456789ab"}) as out:
            WRITERS[name](out)

    with pytest.raises(Exception) as caught, little_room():
        commit()
    assert is_full(caught.value)
    assert not [*tmp_path.glob("artifacts/*"), *tmp_path.glob("tmp/*")]
    commit()
    assert store.find("0123456789ab")


@pytest.mark.parametrize("error", [None, ValueError("28"), OSError(errno.EACCES, os.strerror(errno.EACCES)), OSError()])
def test_other_failures_are_not_taken_for_a_full_disk(error: Exception | None) -> None:
    assert not is_full(error)

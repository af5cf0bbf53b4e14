"""What a model reads before it sees a label: all texts of the split, the worse answers as well as the better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from w2sd.data.pairs import read
from w2sd.data.text import Encoded, EncodedItems
from w2sd.logger import Csv
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.stages import engine, generative
from w2sd.world.ladder import Rung
from w2sd.world.world import World


def test_a_text_of_a_pair_is_its_prompt_with_either_answer() -> None:
    ids = [np.array([n], dtype=np.int32) for n in range(6)]
    texts = generative.whole(Encoded(ids[:2], ids[2:4], ids[4:], [0, 1], 0, 0, 0))
    assert [text.tolist() for text in texts] == [[0, 2], [1, 3], [0, 4], [1, 5]]
    assert generative.whole(EncodedItems(ids, [*range(6)], 0)) == ids


def test_texts_of_every_part_are_read_and_none_of_another_facet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One model serves students of all parts."""
    data = World(gt=8, w2s=8, w2s_parts=2, test=8, helpful=8, helpful_test=8, unrelated=8)
    model = Rung(1, 8, 1, 2, 0.01)
    AutoModelForCausalLM.from_config(model.open_config()).save_pretrained(tmp_path / "model")
    params = {"data": data, "split": "w2s", "model": model, "fit": Fit(batch=4), "seed": 0}
    places: dict[str, Any] = dict.fromkeys(("out", "work", "logs", "tokens"), tmp_path)
    around: dict[str, Any] = {"trainer": Trainer(), "logger": Csv(), "name": "test", "advance": lambda *_: None}
    task = Task("0" * 12, "generative", params, {"base": tmp_path}, **around, **places)
    seen: list[Any] = []
    monkeypatch.setattr(engine, "train", lambda task, learner, loader, *_: seen.append(loader.rows))
    assert generative.run(task)["n/texts"] == 2 * 16
    tokenizer, pairs = model.open_tokenizer(), read(data).rows("w2s", part=None)
    said = sorted(tokenizer(pair.prompt + side)["input_ids"] for pair in pairs for side in (pair.chosen, pair.rejected))
    [rows] = seen
    assert sorted(answer.tolist() for text in rows.texts for answer in text.answers) == said

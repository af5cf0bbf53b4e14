"""Stage `refine`: weak labels, as the strong model sees them after a few of their kind. It is not trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from w2sd.data.batch import Rows
from w2sd.data.layout import Text
from w2sd.data.pairs import Item, classes_of, digest, read, words_for
from w2sd.data.text import Ids, lead_of
from w2sd.errors import require, within
from w2sd.metrics.functional import accuracy
from w2sd.metrics.predictions import LOGITS, read_distributions, write_predictions
from w2sd.models.score import PolicyModel
from w2sd.refinement import InContext
from w2sd.worker import Task

BATCH = 256  # items cut into pieces at once


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet` and the logits of all classes, as a teacher does."""
    params, how = task.params, task.params["refinement"]
    with within("model"):
        model = PolicyModel(params["model"].open_language_model(task.inputs.get("base"))).eval()
        model.to("cuda" if task.trainer.accelerator == "gpu" else "cpu")
        tokenizer = params["model"].open_tokenizer()
    taught = read_distributions(task.inputs["labels"])
    items = [item for item in read(params["data"]).split(params["split"]) if item.id in taught]
    names = words_for(how.words, classes_of(params["data"]) or ())
    words = [_ids(tokenizer, f" {name}") for name in names]
    _check_distinct(words, names)
    said = {item.id: int(taught[item.id].argmax()) for item in items}
    context = getattr(model.lm.config, "max_position_embeddings", None) or params["context"]
    prompts = contexts(items, said, words, how, tokenizer, context)
    logits_NC = _ask(model, [Text(prompt, tuple(words)) for prompt in prompts], task.trainer.micro_tokens)
    if task.rank == 0:
        _write(task, items, logits_NC, prompts)
    right = np.array([item.label for item in items])
    now, before = logits_NC.argmax(axis=1), np.array([said[item.id] for item in items])
    kept = float((now == before).mean())
    return {"n/pairs": len(items), "accuracy": accuracy((now == right).astype(float)), "kept": kept}


def contexts(
    items: list[Item], said: dict[str, int], words: list[Ids], how: InContext, tokenizer: Any, context: int
) -> list[Ids]:
    """For each item, some others with the words of their labels, and then its text: of the others as many as fit."""
    own, between = [_ids(tokenizer, item.text) for item in items], _ids(tokenizer, how.separator)
    with_word = [np.concatenate([ids, words[said[item.id]], between]) for ids, item in zip(own, items, strict=True)]
    lead = lead_of(tokenizer, items[0].text)
    room = context - len(lead) - max(map(len, words))
    found = []
    for place, item in enumerate(items):
        draw = np.random.default_rng(int(digest("in context", str(how.seed), item.id), 16))
        others = draw.choice(len(items) - 1, size=min(how.examples, len(items) - 1), replace=False)
        shown, left = [own[place][-room:]], room - len(own[place])
        for n in others:
            ids = with_word[n + (n >= place)]  # anyone but itself
            if len(ids) <= left:
                shown, left = [ids, *shown], left - len(ids)
        found.append(np.concatenate([lead, *shown]))
    return found


@torch.inference_mode()
def _ask(model: PolicyModel, texts: list[Text], micro_tokens: int) -> np.ndarray:
    """The log-probability of each answer of each text, [N, C]."""
    rows = Rows(texts, micro_tokens, is_packed=False)
    found = np.full((len(texts), len(texts[0].answers)), np.nan, dtype=np.float32)
    order = np.argsort(rows.lengths, kind="stable").tolist()
    device = next(model.parameters()).device
    for start in range(0, len(order), BATCH):
        for piece in rows.pieces(order[start : start + BATCH]):
            found[piece] = model(rows.tokens(piece).to(str(device))).view(found.shape[1], -1).T.cpu().numpy()
    return found


def _write(task: Task, items: list[Item], logits_NC: np.ndarray, prompts: list[Ids]) -> None:
    truth = np.array([item.label for item in items])
    true = logits_NC[range(len(items)), truth].astype(np.float64)
    others = np.where(np.eye(logits_NC.shape[1], dtype=bool)[truth], -np.inf, logits_NC).max(axis=1)
    margin = true - others
    columns = {
        "id": [item.id for item in items],
        "cluster": [item.cluster for item in items],
        "margin": margin,
        "p_correct": 1 / (1 + np.exp(-margin)),
        "n_prompt": np.array([len(ids) for ids in prompts], dtype=np.int32),
        "predicted": logits_NC.argmax(axis=1),
    }
    write_predictions(task.out / "predictions.parquet", columns)
    save_file({"logits": logits_NC}, task.out / LOGITS)


def _ids(tokenizer: Any, text: str) -> Ids:
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)


def _check_distinct(ids: list[Ids], words: list[str]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for word, tokens in zip(words, ids, strict=True):
        require(len(tokens) > 0, "refinement.words", word, "a word with at least one token")
        other = seen.setdefault(tuple(tokens.tolist()), word)
        require(other == word, "refinement.words", word, f"a word of other tokens than {other}")

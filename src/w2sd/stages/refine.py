"""Stage `refine`: weak labels, as the strong model sees them after a few of their kind. It is not trained."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from w2sd.data.batch import Rows
from w2sd.data.layout import Text, Tokens
from w2sd.data.loader import in_length_order
from w2sd.data.pairs import Item, classes_of, read
from w2sd.data.text import Ids, check_distinct, ids_of, lead_of, readable
from w2sd.errors import require
from w2sd.metrics.accuracy import accuracy
from w2sd.models.heads import PolicyModel
from w2sd.models.log_probs import PIECE
from w2sd.models.packing import inputs_of
from w2sd.parts.stopping import is_held_out
from w2sd.parts.words import InContext
from w2sd.pipeline.stage import Task
from w2sd.predictions import LOGITS, PREDICTIONS, read_distributions, write_predictions
from w2sd.stages.encoding import open_policy


class Context(NamedTuple):
    """What is read before an answer, and how many examples are in it."""

    ids: Ids
    n_shown: int


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet` and the logits of all classes, as a teacher does."""
    params, refinement = task.params, task.params["refinement"]
    model, tokenizer = open_policy(task)
    model.eval().to("cuda" if task.trainer.accelerator == "gpu" else "cpu")
    teacher = read_distributions(task.inputs["labels"])
    items = [item for item in read(params["data"]).split(params["split"]) if item.id in teacher]
    classes = classes_of(params["data"]) or ()
    words, context = words_of(refinement, classes, tokenizer, model.lm.config, params["context"])
    labels = {item.id: int(teacher[item.id].argmax()) for item in items}
    shown = contexts(items, labels, words, refinement, tokenizer, context, params.get("holdout", 0.0))
    prompts = [each.ids for each in shown]
    logits_NC = _ask(model, [Text(prompt, tuple(words)) for prompt in prompts], task.trainer.micro_tokens)
    if task.rank == 0:
        _write(task, items, logits_NC, prompts)
    right = np.array([item.label for item in items])
    now, before = logits_NC.argmax(axis=1), np.array([labels[item.id] for item in items])
    return {
        "n/pairs": len(items),
        "accuracy": accuracy((now == right).astype(float)),
        "kept": float((now == before).mean()),
        "shown": float(np.mean([each.n_shown for each in shown])),
    }


def words_of(
    refinement: InContext, classes: tuple[str, ...], tokenizer: Any, config: Any, max_tokens: int
) -> tuple[list[Ids], int]:
    """The tokens of the word of each class, and how many a whole text may have; what cannot be read is refused."""
    names = refinement.words_for(classes)
    words = [readable("refinement.words", f" {name}", tokenizer, config) for name in names]
    check_distinct("refinement.words", words, names)
    readable("refinement.separator", refinement.separator, tokenizer, config)
    context = getattr(config, "max_position_embeddings", None) or max_tokens
    room = context - len(lead_of(tokenizer, names[0])) - max(map(len, words))
    require(room >= 1, "refinement.words", names, f"words that leave room for an item in a context of {context} tokens")
    return words, context


def contexts(
    items: list[Item],
    labels: dict[str, int],
    words: list[Ids],
    refinement: InContext,
    tokenizer: Any,
    context: int,
    holdout: float = 0.0,
) -> list[Context]:
    """For each item, some others with the words of their labels, and then its text: of the others as many as fit.

    Items that a training holds out are shown to each other alone, and so are those that it reads.
    """
    own, between = [ids_of(tokenizer, item.text) for item in items], ids_of(tokenizer, refinement.separator)
    with_word = [np.concatenate([ids, words[labels[item.id]], between]) for ids, item in zip(own, items, strict=True)]
    lead = lead_of(tokenizer, items[0].text)
    room = context - len(lead) - max(map(len, words))
    is_held = np.array([is_held_out(item.cluster, holdout) for item in items])
    mates = {side: np.flatnonzero(is_held == side) for side in (False, True)}
    made = []
    for place, item in enumerate(items):
        others = mates[bool(is_held[place])]
        others = others[others != place]
        shown, left = [own[place][-room:]], room - len(own[place])
        for n in refinement.pick(item.id, others):
            if len(with_word[n]) <= left:
                shown, left = [with_word[n], *shown], left - len(with_word[n])
        made.append(Context(np.concatenate([lead, *shown]), len(shown) - 1))
    return made


@torch.inference_mode()
def _ask(model: PolicyModel, texts: list[Text], micro_tokens: int) -> np.ndarray:
    """The log-probability of each answer of each text, [N, C]; all texts have the same answers.

    Where each is one token, a text is read once and not once for each of them: all are found at its end.
    """
    answers = texts[0].answers
    at_once = all(len(answer) == 1 for answer in answers) and all(len(text.prompt) for text in texts)
    if at_once:
        texts = [Text(np.zeros(0, dtype=np.int32), (text.prompt,)) for text in texts]
    rows = Rows(texts, micro_tokens, is_packed=False)
    logits_NC = np.full((len(texts), len(answers)), np.nan, dtype=np.float32)
    device = next(model.parameters()).device
    for batch in in_length_order(rows.lengths):
        for piece in rows.pieces(batch):
            tokens = rows.tokens(piece).to(str(device))
            if at_once:
                logits_BC = _next(model, tokens, torch.from_numpy(np.concatenate(answers)).to(device))
            else:
                logits_BC = model(tokens).view(len(answers), -1).T
            logits_NC[piece] = logits_BC.cpu().numpy()
    return logits_NC


def _next(model: PolicyModel, tokens: Tokens, ids_C: torch.Tensor) -> torch.Tensor:
    """The log-probability of each of these tokens at the end of each text, [B, C], in single precision at least."""
    if model.has_plain_head:
        hidden_ND = model.backbone(**inputs_of(tokens)).last_hidden_state.flatten(0, 1)
        logits = (model.head(hidden_PD) for hidden_PD in hidden_ND[tokens.end_B].split(PIECE))
    else:
        logits = iter(model.lm(**inputs_of(tokens)).logits.flatten(0, 1)[tokens.end_B].split(PIECE))
    full = ((each, torch.promote_types(each.dtype, torch.float32)) for each in logits)
    return torch.cat([each.to(dtype).log_softmax(dim=-1)[:, ids_C] for each, dtype in full])


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
    write_predictions(task.out / PREDICTIONS, columns)
    save_file({"logits": logits_NC}, task.out / LOGITS)

"""Stage `generate`: what a policy writes after a few prompts, and signs of degeneration in it."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from w2sd.atomic import read_json
from w2sd.data.pairs import Pair, read
from w2sd.data.text import Encoded, Ids
from w2sd.models.hub import load_language_model, load_tokenizer
from w2sd.pipeline.stage import Task
from w2sd.stages.encoding import encode_for

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


def run(task: Task) -> dict[str, Any]:
    """Write `samples.jsonl`: a line per prompt with id, prompt, text, n_tokens (the end token not among them), ended.

    An answer ends with the tokenizer's end token, or when it is as long as the longest answer of the split.
    """
    params, trained = task.params, task.inputs["model"]
    torch.set_num_threads(task.trainer.threads)
    tokenizer, lm = load_tokenizer(trained / "model"), load_language_model(trained / "model").eval()
    lm.to("cuda" if task.trainer.accelerator == "gpu" else "cpu")
    pairs = read(params["data"]).rows(params["split"])
    append_eos = read_json(trained / "spec.json")["params"]["append_eos"]
    encoded = encode_for(lm.config, tokenizer, params["data"], pairs, append_eos, task.tokens)
    pairs = [pairs[i] for i in encoded.kept]
    longest = min(params["max_new_tokens"], max(map(len, (*encoded.chosen, *encoded.rejected))))

    torch.manual_seed(task.stream)  # nothing is drawn here, but a model may bring code of its own
    rows: list[dict[str, Any]] = []
    answers = []
    prompts = _first(pairs, encoded, params["prompts"])
    for n, (pair, prompt) in enumerate(prompts, start=1):
        tokens, ended = answer(lm, prompt, tokenizer.eos_token_id, tokenizer.pad_token_id, longest)
        text = tokenizer.decode(tokens)
        rows.append({"id": pair.id, "prompt": pair.prompt, "text": text, "n_tokens": len(tokens), "ended": ended})
        answers.append(tokens)
        task.advance(n, len(prompts))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (task.out / "samples.jsonl").write_bytes(lines.encode())
    signs = figures(answers, [row["ended"] for row in rows])
    return {"n/prompts": len(rows), **{f"generation/{figure}": value for figure, value in signs.items()}}


def _first(pairs: list[Pair], encoded: Encoded, n: int) -> list[tuple[Pair, Ids]]:
    """The first rows with `n` different prompts: of one prompt a greedy model has only one thing to say."""
    rows: dict[str, tuple[Pair, Ids]] = {}
    for pair, prompt in zip(pairs, encoded.prompts, strict=True):
        rows.setdefault(pair.prompt, (pair, prompt))
    return list(rows.values())[:n]


@torch.no_grad()
def answer(lm: Any, prompt: Ids, end: int | None, pad: int | None, longest: int) -> tuple[list[int], bool]:
    """The likeliest token after `prompt`, and so on, up to the end token; and whether the model came to that.

    The end token is not in the answer. The answer is at most `longest` tokens, the end token counted, and fits into the
    model's context.
    """
    context = getattr(lm.config, "max_position_embeddings", None) or len(prompt) + longest
    longest = min(longest, context - len(prompt))
    if pad is None:
        pad = 0 if end is None else end  # asked for by `generate`; a single row is never padded
    lm.generation_config = GenerationConfig(
        max_new_tokens=longest, do_sample=False, num_beams=1, bos_token_id=None, eos_token_id=end, pad_token_id=pad
    )
    ids_BT = torch.tensor(prompt, dtype=torch.long, device=lm.device)[None]
    written = lm.generate(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
    tokens: list[int] = written[0, len(prompt) :].tolist()
    ended = end is not None and tokens[-1:] == [end]
    return (tokens[:-1] if ended else tokens), ended

"""The work that both sides are given: pairs, a tokenizer trained on them, and a GPT-2 with random weights.

All of it lies in one folder, written once, so that both read the same text and begin with the same weights. Nothing of
w2sd or TRL is imported here.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

SHAPES = {"tiny": (64, 2, 2), "small": (128, 4, 4), "mid": (256, 6, 8)}  # width, layers, heads
VOCABULARY, CONTEXT, BATCH = 4096, 512, 32
END, PAD = "<|end|>", "<|pad|>"  # apart: a head on the last token that is no padding shall read the end token
FILES = {
    "single": "hh_harmless_w2s/harmless_train_gt.pairs.jsonl.gz",
    "multi": "hh_rlhf_test/harmless_base_test.pairs.jsonl.gz",
}
# Words per text in those files: mean and deviation of the logarithm; of the prompt, the better and the worse answer.
WORDS = {
    "single": ((2.57, 0.47), (2.81, 0.93), (3.09, 1.00)),
    "multi": ((4.52, 0.67), (3.10, 1.01), (3.30, 1.04)),
}
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

Pair = dict[str, str]


class Lengths(NamedTuple):
    """Tokens of one pair; an answer's end token counts."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def rows(self) -> tuple[int, int]:
        """Of the two rows that a model reads."""
        return self.prompt + self.chosen, self.prompt + self.rejected


class Work(NamedTuple):
    """What lies in the folder."""

    folder: Path
    size: str
    origin: str  # where the pairs are from
    pairs: list[Pair]
    lengths: list[Lengths]

    @property
    def tokens(self) -> int:
        """Of all rows: prompts count twice."""
        return sum(sum(each.rows) for each in self.lengths)


def build(folder: Path, size: str, data: str, n_pairs: int) -> Work:
    """Write the work into `folder` and return it."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    candidates, origin = read_pairs(data, 4 * n_pairs)
    text = [pair["prompt"] + pair[side] for pair in candidates[:n_pairs] for side in ("chosen", "rejected")]
    bpe = train_tokenizer(text)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PAD)
    fitting = [(pair, each) for pair in candidates if max((each := measure(bpe, pair)).rows) <= CONTEXT]
    width, layers, heads = SHAPES[size]
    config = GPT2Config(
        **{"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": CONTEXT},
        **{"vocab_size": bpe.get_vocab_size(), "bos_token_id": None},
        **{"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pairs, lengths = (list(column) for column in zip(*fitting[:n_pairs], strict=True))
    (folder / "work.json").write_text(json.dumps([size, origin, pairs, lengths]))
    return load(folder)


def load(folder: Path) -> Work:
    """What `build` wrote."""
    size, origin, pairs, lengths = json.loads((folder / "work.json").read_text())
    return Work(folder, size, origin, pairs, [Lengths(*each) for each in lengths])


def read_pairs(data: str, n: int) -> tuple[list[Pair], str]:
    """The first `n` pairs of the file in $W2SD_DATA, or as many generated ones, and which of the two they are."""
    if "W2SD_DATA" not in os.environ:
        return generate(data, n), "generated"
    with gzip.open(Path(os.environ["W2SD_DATA"], FILES[data]), "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    if data == "multi":
        pairs = [pair for pair in pairs if pair["prompt"].count(HUMAN) > 1]
    return pairs[:n], FILES[data].partition(".")[0]


def generate(data: str, n: int, seed: int = 0) -> list[Pair]:
    """Pairs of made-up words with the lengths of the real ones; the words are as unequally common as a language's."""
    draw = random.Random(seed)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(3000)]
    common = [1 / rank for rank in range(1, len(words) + 1)]

    def text(mean: float, deviation: float) -> str:
        n_words = min(300, max(1, round(draw.lognormvariate(mean, deviation))))
        return "".join(" " + word for word in draw.choices(words, common, k=n_words))

    pairs = []
    for _ in range(n):
        prompt, chosen, rejected = (text(*shape) for shape in WORDS[data])
        turns = prompt.split(" ")[1:]
        cuts = [0, len(turns) // 3, 2 * len(turns) // 3, len(turns)] if data == "multi" else [0, len(turns)]
        said = [" " + " ".join(turns[start:end]) for start, end in pairwise(cuts)]
        spoken = "".join((HUMAN, ASSISTANT)[turn % 2] + words for turn, words in enumerate(said))
        pairs.append({"prompt": spoken + ASSISTANT, "chosen": chosen, "rejected": rejected})
    return pairs


def train_tokenizer(text: list[str]) -> Any:
    """A byte-level BPE of `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(text, trainer)
    return bpe


def measure(bpe: Any, pair: Pair) -> Lengths:
    """The tokens of a pair; answers begin with their space, where no token reaches over."""
    prompt, chosen, rejected = (len(bpe.encode(pair[part]).ids) for part in ("prompt", "chosen", "rejected"))
    return Lengths(prompt, chosen + 1, rejected + 1)


def first_head(width: int) -> Any:
    """The weights that the scalar head of a reward model begins with, [1, width]."""
    import torch

    return torch.randn(1, width, generator=torch.Generator().manual_seed(0)) * 0.02


def forward_flops(work: Work, objective: str, shared: bool) -> float:
    """Floating-point operations of one pass over all pairs, prompts read twice or (`shared`) once.

    2·12·width²·layers for each token, 2·width·layers for each token and each one before it that it attends to, times
    two products; policies add 2·width·vocabulary for each token of an answer. A training step is three of that.
    """
    width, layers, _ = SHAPES[work.size]
    total = 0.0
    for p, c, r in work.lengths:
        tokens = p + c + r if shared else 2 * p + c + r
        attended = (p * p + c * c + 2 * p * c + r * r + 2 * p * r) / 2 if shared else ((p + c) ** 2 + (p + r) ** 2) / 2
        total += 24 * width**2 * layers * tokens + 4 * width * layers * attended
        if objective != "reward":
            total += 2 * width * VOCABULARY * (c + r)
    return total

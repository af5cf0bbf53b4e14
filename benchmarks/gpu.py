"""w2sd's engine on one GPU: checks of what it computes, then times beside TRL and beside the GPU's own ceiling.

    python benchmarks/gpu.py --out results            # eight minutes
    python benchmarks/gpu.py --minutes 2 --cases large-reward-single

Needs torch, transformers and w2sd's `src` on the path, and TRL to compare with. Without a GPU it runs the same code on
tiny models in single precision, to be tried out. Exit code 1: a check failed, and nothing was timed.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import itertools
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from w2sd.data.batch import PairBatch, PairRows
from w2sd.data.layout import Text, Tokens, packed, plain
from w2sd.models import packing
from w2sd.models.heads import PolicyModel, RewardModel
from w2sd.models.log_probs import log_probs
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.preference import DPO, SimPO
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import PairLogProbs, PairScores

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
SHAPES = {"large": (36, 1280, 20), "xl": (48, 1600, 25), "tiny": (2, 32, 2)}  # layers, width, heads
OBJECTIVES: dict[str, Any] = {"reward": RewardBCE(), "simpo": SimPO(beta=2.0, gamma=1.0), "dpo": DPO(beta=0.1)}
# Tokens of the prompt and of the two answers: mean, and deviation of the logarithm, as in HH (harmless). A dialogue of
# several turns has the same answers, and a prompt of which one copy of two is 37.5% of the pair.
LENGTHS = {
    "single": ((23.5, 0.47), (34.7, 0.93), (48.2, 1.0)),
    "multi": ((124.4, 0.67), (34.7, 0.93), (48.2, 1.0)),
}
CONTEXT, VOCABULARY, END = 1024, 50257 if GPU else 1000, 0
WARM, STEPS = (2, 4) if GPU else (1, 1)
MICRO = (32768, 8192, 16384, 65536) if GPU else (512, 256)  # tokens in memory at once; the first is tried first
PEER_MICRO = (64, 128, 256, 32) if GPU else (4,)  # pairs
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
NO_IDS = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": END}


class Case(NamedTuple):
    shape: str
    objective: str
    data: str

    @property
    def name(self) -> str:
        return "-".join(self)


class Job(NamedTuple):
    """One measurement: how rows lie (or TRL), and how much is in memory at once."""

    case: Case
    how: str  # packed | plain | by text | TRL
    micro: int


class Result(NamedTuple):
    job: Job
    pairs_per_s: float
    tokens_per_s: float  # that were read: packed rows have each prompt once
    tflops: float  # of the mathematics, without what is computed a second time
    peak_gb: float
    problem: str = ""


# --- the work ---------------------------------------------------------------------------------------------------------


def texts_of(data: str, n: int) -> list[Text]:
    """Pairs of random words, as long as real ones; each answer ends in the end token, as it does under TRL."""
    random = np.random.default_rng(0)
    columns = []
    for mean, deviation in LENGTHS[data]:
        drawn = random.lognormal(math.log(mean) - deviation**2 / 2, deviation, n)
        columns.append(np.clip(drawn.round(), 1, CONTEXT // 2 - 1).astype(int))

    def words(length: int) -> np.ndarray:
        return random.integers(1, VOCABULARY, length).astype(np.int32)

    def ended(length: int) -> np.ndarray:
        return np.append(words(length - 1), END).astype(np.int32)

    return [Text(words(p), (ended(c), ended(r))) for p, c, r in zip(*columns, strict=True)]


def rows_of(texts: list[Text], micro: int, is_packed: bool) -> PairRows:
    """As a stage makes them, with a reference for objectives that want one."""
    encoded: Any = argparse.Namespace(
        prompts=[text.prompt for text in texts],
        chosen=[text.answers[0] for text in texts],
        rejected=[text.answers[1] for text in texts],
    )
    n = len(texts)
    given = {"targets": np.ones(n), "references": np.full((n, 2), -300.0)}
    return PairRows(encoded, np.zeros(n, dtype=bool), micro, is_packed=is_packed, **given)


def config_of(shape: str) -> GPT2Config:
    layers, width, heads = SHAPES[shape]
    size = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
    return GPT2Config(**size, **NO_DROPOUT, **NO_IDS)


def model_of(objective: str, config: PretrainedConfig) -> RewardModel | PolicyModel:
    """With random weights, made where it is used."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        lm = (AutoModel if objective == "reward" else AutoModelForCausalLM).from_config(
            copy.deepcopy(config), dtype=torch.float32
        )
    silence_dropout(lm)
    model = RewardModel(lm) if objective == "reward" else PolicyModel(lm)
    return model.to(DEVICE).train()


def flops(texts: list[Text], case: Case, shared: bool) -> float:
    """Of a training step over these pairs, forward and twice that backward, prompts read twice or (`shared`) once."""
    layers, width, _ = SHAPES[case.shape]
    total = 0.0
    for prompt, answers in texts:
        p, c, r = len(prompt), *map(len, answers)
        read = p + c + r if shared else 2 * p + c + r
        rows = (p + c) ** 2 + (p + r) ** 2
        seen = (rows - p * p if shared else rows) / 2
        total += 24 * width**2 * layers * read + 4 * width * layers * seen
        if case.objective != "reward":
            total += 2 * width * VOCABULARY * (c + r)
    return 3 * total


# --- w2sd -------------------------------------------------------------------------------------------------------------


def by_text(tokens: Tokens) -> packing.Packing:
    """What the attention is told on a CPU: text by text, on a GPU as well."""
    return packing.Packing(packing.grouped(tokens))


def by_block(tokens: Tokens) -> packing.Packing:
    """What it is told on a GPU: one block mask, on a CPU as well."""
    return packing.Packing((), packing.block_mask(tokens))


@contextmanager
def told(how: Callable[[Tokens], packing.Packing]) -> Iterator[None]:
    usual = packing.packing
    packing.packing = how
    try:
        yield
    finally:
        packing.packing = usual


def half() -> Any:
    return torch.autocast(DEVICE, torch.bfloat16)


def losses(model: RewardModel | PolicyModel, objective: Any, batch: PairBatch) -> Tensor:
    """As a student's."""
    said_B = model(batch.tokens).float()
    if objective.student == "reward":
        return objective(PairScores(*said_B.chunk(2)), batch.targets)
    sides = [said_B, batch.tokens.n_answer_B.float()] + [batch.reference_B] * objective.needs_reference
    return objective(PairLogProbs(*(side for both in sides for side in both.chunk(2))), batch.targets)


def on_device(batch: PairBatch) -> PairBatch:
    rest = [part.to(DEVICE) for part in batch[1:]]
    return PairBatch(batch.tokens.to(DEVICE), *rest)


def measure_w2sd(job: Job, texts: list[Text], batch: int) -> float:
    """Seconds for all steps after the warm-up: batches made, scores, losses, gradients, AdamW."""
    model = model_of(job.case.objective, config_of(job.case.shape))
    is_packed = job.how != "plain"
    if is_packed and not packing.pack(model, CONTEXT, DEVICE):
        raise RuntimeError("the model could not be packed")
    rows, objective = rows_of(texts, job.micro, is_packed), OBJECTIVES[job.case.objective]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-6, weight_decay=0.0, fused=True)
    began = 0.0
    with told(by_text if job.how == "by text" else packing.packing):
        for step, start in enumerate(range(0, len(texts), batch)):
            if step == WARM:
                began = now()
            optimiser.zero_grad()
            for piece in rows[list(range(start, start + batch))]:
                with half() if GPU else nullcontext():
                    loss = losses(model, objective, on_device(piece)).sum() / batch
                loss.backward()
            optimiser.step()
    return now() - began


# --- TRL --------------------------------------------------------------------------------------------------------------


def tokenizer_of() -> Any:
    """One token for each word; no word is a part of another, or special tokens would be found inside others."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word(i): i for i in range(VOCABULARY)}, unk_token=word(1)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=word(END), pad_token=word(END), unk_token=word(1))


def word(i: int) -> str:
    return f"<{i}>"


def measure_trl(job: Job, texts: list[Text], batch: int) -> float:
    """The same pairs through TRL's trainer at its best: grouped by length, no checkpointing, the reference cached."""
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "TQDM_DISABLE": "1"}
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForSequenceClassification, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    disable_progress_bars()

    class Clock(TrainerCallback):
        steps, began, ended = 0, 0.0, 0.0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.steps += 1
            if self.steps == WARM:
                self.began = now()
            self.ended = now() if self.steps == WARM + STEPS else 0.0

    def said(ids: np.ndarray) -> str:
        return " ".join(map(word, ids))

    rows = [
        {
            **{"prompt": said(text.prompt), "length": len(text.prompt) + max(map(len, text.answers))},
            **{side: " " + said(ids[:-1]) for side, ids in zip(("chosen", "rejected"), text.answers, strict=True)},
        }
        for text in texts
    ]
    config = config_of(job.case.shape)
    own: dict[str, Any] = {"beta": 0.1, "precompute_ref_log_probs": True}
    kinds = {"reward": (RewardConfig, RewardTrainer), "simpo": (CPOConfig, CPOTrainer), "dpo": (DPOConfig, DPOTrainer)}
    if job.case.objective == "reward":
        own, config.num_labels = {}, 1
    elif job.case.objective == "simpo":
        own = {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0, "beta": 2.0}
    make = AutoModelForSequenceClassification if job.case.objective == "reward" else AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(DEVICE):
        models = [make.from_config(config) for _ in range(1 + (job.case.objective == "dpo"))]
    make_args, make_trainer = kinds[job.case.objective]
    with tempfile.TemporaryDirectory() as scratch:
        args = make_args(
            output_dir=scratch,
            per_device_train_batch_size=job.micro,
            gradient_accumulation_steps=batch // job.micro,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,  # the column of lengths is what grouping by length reads
            **{"num_train_epochs": 1, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0},
            **{"bf16": GPU, "use_cpu": not GPU, "gradient_checkpointing": False, "max_length": CONTEXT},
            **{"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"},
            **{"dataloader_pin_memory": GPU, "dataloader_num_workers": 2 if GPU else 0, "learning_rate": 1e-6},
            **own,
        )
        reference = {"ref_model": models[1]} if len(models) > 1 else {}
        data, clock = Dataset.from_list(rows), Clock()
        trainer = make_trainer(
            model=models[0],
            args=args,
            train_dataset=data,
            processing_class=tokenizer_of(),
            callbacks=[clock],
            **reference,
        )
        trainer.remove_callback(PrinterCallback)
        require_equal_tokens(trainer.train_dataset, texts)
        trainer.train()
    return clock.ended - clock.began


def require_equal_tokens(rows: Any, texts: list[Text]) -> None:
    """Refuse a comparison in which the other side reads something else."""
    end = "_ids" if "chosen_ids" in rows.column_names else "_input_ids"
    theirs = sum(len(ids) for side in ("chosen", "rejected") for ids in rows[side + end])
    if "prompt_ids" in rows.column_names:
        theirs += 2 * sum(map(len, rows["prompt_ids"]))
    ours = sum(2 * len(text.prompt) + sum(map(len, text.answers)) for text in texts)
    if theirs != ours:
        raise RuntimeError(f"TRL reads {theirs} tokens and w2sd {ours}")


# --- times ------------------------------------------------------------------------------------------------------------


def now() -> float:
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def ceiling() -> float:
    """TFLOP/s of a large matrix product, in the precision of the training."""
    n = 8192 if GPU else 512
    one, other = torch.randn(2, n, n, device=DEVICE, dtype=torch.bfloat16 if GPU else torch.float32)
    for _ in range(3):
        one @ other
    began, times = now(), 20 if GPU else 5
    for _ in range(times):
        one @ other
    return times * 2 * n**3 / (now() - began) / 1e12


def measure(job: Job, batch: int) -> Result:
    texts = texts_of(job.case.data, batch * (WARM + STEPS))
    timed, shared = texts[WARM * batch :], job.how in ("packed", "by text")
    read = sum((1 if shared else 2) * len(text.prompt) + sum(map(len, text.answers)) for text in timed)
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = (measure_trl if job.how == "TRL" else measure_w2sd)(job, texts, batch)
    except torch.cuda.OutOfMemoryError:
        return Result(job, 0.0, 0.0, 0.0, 0.0, "out of memory")
    except Exception as error:  # one side's failure is a line of the table, and the others are measured
        return Result(job, 0.0, 0.0, 0.0, 0.0, f"{type(error).__name__}: {str(error)[:200]}")
    peak = torch.cuda.max_memory_allocated() / 1e9 if GPU else 0.0
    work = flops(timed, job.case, shared)
    return Result(job, len(timed) / seconds, read / seconds, work / seconds / 1e12, peak)


def jobs_of(cases: list[Case], batch: int) -> Iterator[Job]:
    """What matters most comes first, for the time may end before the list does."""
    peers = [micro for micro in PEER_MICRO if micro <= batch]
    for case in cases:
        yield Job(case, "packed", MICRO[0])
        yield Job(case, "TRL", peers[0])
    for other in itertools.zip_longest(MICRO[1:], peers[1:]):
        for case, (how, micro) in itertools.product(cases, zip(("packed", "TRL"), other, strict=True)):
            if micro:
                yield Job(case, how, micro)
    for case, how in itertools.product(cases, ("plain", "by text")):
        yield Job(case, how, MICRO[0])


def best(results: list[Result], case: Case, peer: bool) -> Job | None:
    """Of the jobs that were measured most often the one with the highest rate."""
    rates: dict[Job, list[float]] = defaultdict(list)
    for each in results:
        if each.job.case == case and (each.job.how == "TRL") == peer and not each.problem:
            rates[each.job].append(each.pairs_per_s)
    return max(rates, key=lambda job: (len(rates[job]), np.median(rates[job])), default=None)


def turns(results: list[Result], job: Job) -> list[Result]:
    """Without the first, by which it was chosen, unless there is no other."""
    found = [each for each in results if each.job == job and not each.problem]
    return found[1:] or found


def medians(results: list[Result], job: Job) -> Result:
    columns = list(zip(*turns(results, job), strict=True))[1:5]
    return Result(job, *(float(np.median(column)) for column in columns))


def line(each: Result, top: float) -> str:
    """A row of the first table."""
    start = f"| {each.job.case.name} | {each.job.how} | {each.job.micro} |"
    if each.problem:
        return f"{start} {each.problem} | | | | |"
    rate = f"{each.pairs_per_s:.1f} | {each.tokens_per_s:.0f} | {each.tflops:.3g} | {each.tflops / top:.0%}"
    return f"{start} {rate} | {each.peak_gb:.1f} |"


def table(results: list[Result], top: float) -> str:
    """Markdown: every measurement; then, for each case, the best of both sides and the median ratio of their turns."""
    heads = ("case", "rows", "micro", "pairs/s", "tokens/s", "TFLOP/s", "of the ceiling", "peak GB")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * 3 + "---:|" * 5, *(line(each, top) for each in results)]
    lines += ["", "| case | w2sd, best | of the ceiling | TRL, best | w2sd : TRL |", "|---|---|---:|---|---:|"]
    for case in dict.fromkeys(each.job.case for each in results):
        ours, theirs = best(results, case, peer=False), best(results, case, peer=True)
        if ours is None:
            continue
        here, peer, ratio = medians(results, ours), "–", "–"
        if theirs is not None:
            peer = f"{medians(results, theirs).pairs_per_s:.1f} pairs/s ({theirs.micro} pairs)"
            ratio = f"{ratio_of(results, ours, theirs):.2f}"
        mine = f"{here.pairs_per_s:.1f} pairs/s ({ours.how}, {ours.micro} tokens)"
        lines.append(f"| {case.name} | {mine} | {here.tflops / top:.0%} | {peer} | {ratio} |")
    return "\n".join(lines)


def ratio_of(results: list[Result], ours: Job, theirs: Job) -> float:
    """Of rates measured one after the other."""
    mine, peer = ([each.pairs_per_s for each in turns(results, job)] for job in (ours, theirs))
    return float(np.median([one / other for one, other in zip(mine, peer, strict=False)]))


# --- checks -----------------------------------------------------------------------------------------------------------


class Check(NamedTuple):
    name: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed  # never of a NaN

    def __str__(self) -> str:
        verdict = "ok" if self.holds else "FAILED"
        return f"{self.name}: difference {self.difference:.2g}, allowed {self.allowed:.2g}: {verdict}"


def checks() -> Iterator[Check]:
    """Packed rows against plain ones, and the log-probabilities against torch's own."""
    width, n = (256, 12) if GPU else (64, 3)
    shape = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    llama = LlamaConfig(
        **shape, intermediate_size=2 * width, max_position_embeddings=CONTEXT, vocab_size=1000, **NO_IDS
    )
    gpt2 = GPT2Config(n_embd=width, n_layer=2, n_head=4, n_positions=CONTEXT, vocab_size=1000, **NO_DROPOUT, **NO_IDS)
    texts = [Text(prompt % 1000, tuple(ids % 1000 for ids in answers)) for prompt, answers in texts_of("multi", n)]
    for name, config in (("gpt2", gpt2), ("llama", llama)):
        for objective in ("reward", "simpo"):
            yield from packed_checks(f"{name} {objective}", model_of(objective, config), texts)
    for dtype in (torch.float32, torch.bfloat16):
        yield from log_prob_checks(dtype)


def packed_checks(name: str, model: RewardModel | PolicyModel, texts: list[Text]) -> Iterator[Check]:
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(5)  # far from the tiny start, so that attention to a wrong token shows
    rows, row = plain(texts).to(DEVICE), packed(texts).to(DEVICE)
    exact = graded(model, rows)
    with half():
        rounded = distance(graded(model, rows), exact)
    if not packing.pack(model, CONTEXT, DEVICE):
        yield Check(f"{name}: the model reads packed rows", 1.0, 0.0)
        return
    single = distance(graded(model, row), exact)
    with half():
        mixed = distance(graded(model, row), exact)
    for part, here, in_half, plainly in zip(PARTS, single, mixed, rounded, strict=True):
        yield Check(f"{name}, packed: {part}", here, 1e-3)
        yield Check(f"{name}, packed, bf16: {part}", in_half, 3 * plainly + 1e-2)
    if not GPU:  # where the block mask has its check in those above
        with told(by_block), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not compiled
            yield Check(f"{name}, block mask: scores", far(model(row).double(), exact[0]), 1e-3)


PARTS = ("scores", "gradient")


def graded(model: RewardModel | PolicyModel, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of something that minds each of them."""
    said_B = model(tokens).float()
    weights = list(model.parameters())
    loss = (said_B * torch.linspace(-1, 2, len(said_B), device=said_B.device)).sum()
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return said_B.detach().double(), torch.cat([each.flatten().double() for each in found if each is not None])


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> list[float]:
    return [far(here, there) for here, there in zip(one, other, strict=True)]


def log_prob_checks(dtype: torch.dtype) -> Iterator[Check]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    n = 6000 if GPU else 600  # more than one piece
    hidden_ND = torch.randn(n, 64, generator=generator, device=DEVICE)
    weight_VD = torch.randn(VOCABULARY, 64, generator=generator, device=DEVICE) / 10
    ids_N = torch.randint(VOCABULARY, (n,), generator=generator, device=DEVICE)
    both = [each.to(dtype).requires_grad_() for each in (hidden_ND, weight_VD)]
    double = [each.detach().double().requires_grad_() for each in both]
    here = log_probs(both[0], both[1], ids_N)
    there = -nn.functional.cross_entropy(double[0] @ double[1].t(), ids_N, reduction="none")
    allowed = 1e-4 if dtype is torch.float32 else 3e-2
    yield Check(f"log_probs {dtype}", far(here.detach().double(), there.detach()), allowed)
    grads = zip(torch.autograd.grad(here.sum(), both), torch.autograd.grad(there.sum(), double), strict=True)
    for part, (one, other) in zip(("states", "embedding"), grads, strict=True):
        yield Check(f"log_probs {dtype}: gradient of the {part}", far(one.double(), other), allowed)


# --- the run ----------------------------------------------------------------------------------------------------------


def described() -> dict[str, Any]:
    found = {name: importlib.util.find_spec(name) is not None for name in ("trl", "datasets", "accelerate")}
    import transformers

    device = torch.cuda.get_device_name() if GPU else f"CPU ({torch.get_num_threads()} threads)"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    missing = [name for name, there in found.items() if not there]
    if not missing:
        versions["trl"] = __import__("trl").__version__
    return {"device": device, "versions": versions, "missing": missing}


def mask_cost() -> str:
    """What the block mask of a full row costs, once for all layers of a micro-batch."""
    texts = texts_of("single", MICRO[0] // 107)
    tokens = packed(texts).to(DEVICE)
    for _ in range(2):
        began = now()
        packing.block_mask(tokens)
        seconds = now() - began
    return f"block mask of a row of {tokens.ids.shape[1]} tokens: {1000 * seconds:.1f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for gpu.md and gpu.json")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no measurement after so long")
    parser.add_argument("--batch", type=int, default=512 if GPU else 8, help="pairs in an optimiser step")
    parser.add_argument("--rounds", type=int, default=3, help="turns that the best of both sides take")
    parser.add_argument("--cases", help="SHAPE-OBJECTIVE-DATA, with commas; all of them, if not given")
    asked = parser.parse_args()
    began = time.monotonic()
    shapes = ("large", "xl") if GPU else ("tiny",)
    cases = [Case(*each) for data in LENGTHS for each in itertools.product(shapes, OBJECTIVES, [data])]
    if asked.cases:
        cases = [Case(*name.split("-")) for name in asked.cases.split(",")]
    about = described()
    print(about["device"], about["versions"], flush=True)
    if about["missing"]:
        print(f"TRL is left out: {', '.join(about['missing'])} not installed", flush=True)
    made = []
    for check in checks():
        made.append(check)
        print(check, flush=True)
    if not all(check.holds for check in made):
        return 1
    top = ceiling()
    print(f"ceiling: {top:.3g} TFLOP/s in a matrix product\n{mask_cost()}", flush=True)
    results: list[Result] = []

    def in_time(share: float) -> bool:
        return time.monotonic() < began + 60 * asked.minutes * share

    def run(job: Job) -> None:
        if not (job.how == "TRL" and about["missing"]):
            results.append(measure(job, asked.batch))
            print(line(results[-1], top), flush=True)
            write(asked.out, about, made, top, results)

    for job in jobs_of(cases, asked.batch):
        if in_time(0.6):  # the rest of it is for the turns
            run(job)
    finals = [[best(results, case, peer) for peer in (False, True)] for case in cases]
    for _, sides in itertools.product(range(asked.rounds), finals):
        for job in sides:
            if job and all(sides) and in_time(1):
                run(job)
    print(table(results, top))
    if not in_time(0.6):
        print("the time is over: there may be less than was asked for")
    return 0


def write(out: Path | None, about: dict[str, Any], made: list[Check], top: float, results: list[Result]) -> None:
    """What is known so far."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.md").write_text(f"{about['device']}, {about['versions']}\n\n{table(results, top)}\n")
    told = [each._asdict() | {"job": [each.job.case.name, each.job.how, each.job.micro]} for each in results]
    whole = about | {"checks": [check._asdict() for check in made], "ceiling_tflops": top, "results": told}
    (out / "gpu.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    sys.exit(main())

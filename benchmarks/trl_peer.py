"""One measurement of TRL's trainers in a process of its own: `python trl_peer.py FOLDER OBJECTIVE …`, a line of JSON.

The settings that every trainer has here: fp32, no gradient checkpointing, no dropout, no clipping, AdamW (fused, as is
its default), global batches of 32 by accumulation, nothing reported or saved. What is left to choose are the options
below; the best that were found are in `BEST`, all that were tried in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import work

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "TQDM_DISABLE": "1"}
warnings.simplefilter("ignore")


class Options(NamedTuple):
    """What a user of TRL can choose without changing what is learned."""

    micro: int = 4  # pairs in memory at once
    evaluate: int = 8  # the same, where nothing is trained
    sampling: str = "group_by_length"  # or random, sequential
    precompute: bool = False  # DPO: the reference's answers before the training
    attention: str = "sdpa"  # or eager


BEST = {"reward": Options(), "simpo": Options(), "dpo": Options(), "dpo-cached": Options(precompute=True)}
OWN: dict[str, dict[str, Any]] = {
    "reward": {},
    "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0, "beta": 2.0},
    "dpo": {"beta": 0.1},
}


def trainer_for(given: work.Work, objective: str, options: Options, n: int, scratch: str, **training: Any) -> Any:
    """The trainer of an objective over the first `n` pairs, made by its public constructor."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kinds = {"reward": (RewardConfig, RewardTrainer), "simpo": (CPOConfig, CPOTrainer), "dpo": (DPOConfig, DPOTrainer)}
    config, trainer = kinds[objective]
    own = OWN[objective] | ({"precompute_ref_log_probs": options.precompute} if objective == "dpo" else {})
    args = config(
        output_dir=scratch,
        per_device_train_batch_size=options.micro,
        gradient_accumulation_steps=work.BATCH // options.micro,
        per_device_eval_batch_size=options.evaluate,
        train_sampling_strategy=options.sampling,
        remove_unused_columns=False,  # the column of lengths is what grouping by length reads
        **{"num_train_epochs": 1, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0},
        **{"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "max_length": work.CONTEXT},
        **{"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False},
        **({"learning_rate": 1e-5} | own | training),
    )
    rows = [pair | {"length": max(each.rows)} for pair, each in zip(given.pairs[:n], given.lengths, strict=False)]
    if options.sampling == "group_by_length":
        rows.sort(key=lambda row: row["length"])  # which only the precomputation sees: the sampler shuffles
    data, tokenizer = Dataset.from_list(rows), transformers.AutoTokenizer.from_pretrained(given.folder / "model")
    model = model_for(given, objective, options.attention)
    return trainer(model=model, args=args, train_dataset=data, eval_dataset=data, processing_class=tokenizer)


def model_for(given: work.Work, objective: str, attention: str) -> Any:
    """The first weights, as the other side has them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    how: dict[str, Any] = {"dtype": "float32", "attn_implementation": attention}
    if objective != "reward":
        return AutoModelForCausalLM.from_pretrained(given.folder / "model", **how)
    model = AutoModelForSequenceClassification.from_pretrained(given.folder / "model", num_labels=1, **how)
    with torch.no_grad():
        model.score.weight.copy_(work.first_head(model.config.n_embd))
    return model


def clock_for(trainer: Any) -> Any:
    """Notes the CPU time of the epoch's begin and of its last step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.process_time()

    clock = Clock()
    trainer.add_callback(clock)
    return clock


def run_once(given: work.Work, objective: str, options: Options, n: int, scratch: str) -> dict[str, Any]:
    """Training and evaluation on the first `n` pairs: CPU-seconds of each, and of a reference that comes first."""
    seconds: dict[str, float] = {}
    if options.precompute:
        time_precomputation(seconds)
    trainer = trainer_for(given, objective, options, n, scratch)
    clock = clock_for(trainer)
    trainer.train()
    seconds["train"] = clock.ended - clock.began
    began = time.process_time()
    trainer.evaluate()
    seconds["evaluate"] = time.process_time() - began
    return {"pairs": len(trainer.train_dataset), "tokens": tokens_of(trainer.train_dataset), "seconds": seconds}


def time_precomputation(seconds: dict[str, float]) -> None:
    """Have the CPU time of the reference's pass over the training pairs written into `seconds`."""
    from trl import DPOTrainer

    original = vars(DPOTrainer).get("_precompute_ref_logps")
    if original is None:
        raise SystemExit("this TRL precomputes its reference in another place: benchmarks/trl_peer.py knows 1.16")
    if hasattr(original, "timed"):
        original = original.timed

    def timed(self: Any, dataset: Any, name: str, batch_size: int) -> Any:
        began = time.process_time()
        made = original(self, dataset, name, batch_size)
        if name == "train":
            seconds["reference"] = time.process_time() - began
        return made

    timed.timed = original  # type: ignore[attr-defined]
    DPOTrainer._precompute_ref_logps = timed


def tokens_of(rows: Any) -> int:
    """Tokens of all rows that its tokenization made; prompts count twice."""
    if "chosen_input_ids" in rows.column_names:
        columns = [(name, 1) for name in ("chosen_input_ids", "rejected_input_ids")]
    else:
        columns = [(name, 1) for name in ("chosen_ids", "rejected_ids")]
        columns += [("prompt_ids", 2)] if "prompt_ids" in rows.column_names else []
    return sum(times * sum(map(len, rows[name])) for name, times in columns)


def first_losses(given: work.Work, objective: str, scratch: str, n_steps: int) -> list[float]:
    """The loss of each of the first steps, on pairs in their order, at a rate that moves them."""
    options = Options(sampling="sequential")
    steps = {"logging_steps": 1, "learning_rate": 1e-3}
    trainer = trainer_for(given, objective, options, n_steps * work.BATCH, scratch, **steps)
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("objective", choices=BEST)
    parser.add_argument("--check", type=int, default=0, help="so many first losses, and nothing else")
    parser.add_argument("--options", type=json.loads, default={}, help="others than the best, as JSON")
    asked = parser.parse_args()
    given, objective = work.load(asked.folder), asked.objective.partition("-")[0]
    with tempfile.TemporaryDirectory() as scratch:
        if asked.check:
            print(json.dumps(first_losses(given, objective, scratch, asked.check)))
            return
        options = BEST[asked.objective]._replace(**asked.options)
        run_once(given, objective, options, 2 * work.BATCH, scratch)  # a warm-up
        found = run_once(given, objective, options, len(given.pairs), scratch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(found | {"peak_mb": peak, "options": options._asdict()}))


if __name__ == "__main__":
    main()

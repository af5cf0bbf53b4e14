"""What a stage took, for `runtime.json`: rates, padding, the most memory. No torch: not every stage needs it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

from w2sd.data.tally import Tally
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Stretch


def figures(stretches: Sequence[Stretch], started: float | None = None) -> dict[str, float | None]:
    """Return the rates and the padding of a stage that `started` then and had these stretches; null where undefined."""
    seen, timed = Tally(), Tally()
    for stretch in stretches:
        seen, timed = seen.plus(stretch.seen), timed.plus(stretch.timed)
    seconds, cpu_seconds = (sum(getattr(each, name) for each in stretches) for name in ("seconds", "cpu_seconds"))
    found = {
        "pairs_per_s": _share(timed.examples, seconds),
        "pairs_per_cpu_s": _share(timed.examples, cpu_seconds),
        "tokens_per_s": _share(timed.tokens, seconds),
        "padding": _share(seen.places - seen.tokens, seen.places),
        "seconds": seconds,
        "setup_seconds": None if started is None or not stretches else stretches[0].began - started,
    }
    [*layouts] = {each.is_packed for each in stretches}
    rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in found.items()}
    rounded["packed"] = (
        layouts[0] if len(layouts) == 1 else None
    )  # a later pass may read texts that are too long for it
    return {f"throughput/{name}": value for name, value in rounded.items()}


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if whole > 0 else None


def reset_peak() -> None:
    """Begin to count the GPU's peak anew: what an earlier stage of this process had there is not this one's."""
    if _is_on_gpu():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def memory(trainer: Trainer) -> dict[str, int | None]:
    """Return the most memory that this process ever had, and the most that this stage had on the GPU."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    is_gpu = trainer.accelerator == "gpu" and _is_on_gpu()
    return {
        "memory/peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "memory/peak_gpu_mb": sys.modules["torch"].cuda.max_memory_allocated() // 1024**2 if is_gpu else None,
    }


def _is_on_gpu() -> bool:
    """Return whether this process has used a GPU; a process that has not imported torch has not."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()

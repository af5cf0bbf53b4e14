"""What tokens cost, beside what they cost once they are known, in CPU-seconds. Prints a Markdown table.

python benchmarks/tokens.py [OVERRIDES of w2sd ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np

from w2sd.cli import CONF
from w2sd.config import RunConfig, read
from w2sd.data import pairs
from w2sd.data.text import Encoded
from w2sd.stages import encoding


def timed(do: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the CPU-seconds of all threads that it took."""
    began = time.process_time()
    return do(), time.process_time() - began


def measure(run: RunConfig) -> str:
    """The rows of all splits, as the stages of a job that trains policies ask for them."""
    table, reading = timed(lambda: pairs.read(run.data))
    (config, tokenizer), opening = timed(lambda: (run.strong.open_config(), run.strong.open_tokenizer()))

    def ask(kept: Path | None = None) -> list[Encoded]:
        splits = map(table.split, pairs.SPLITS)
        return [encoding.encode_for(config, tokenizer, run.data, rows, "auto", kept) for rows in splits]

    with tempfile.TemporaryDirectory() as folder:
        whole, making = timed(ask)
        _, knowing = timed(ask)
        _, writing = timed(lambda: ask(Path(folder)))
        encoding._remembered.cache_clear()
        same, finding = timed(lambda: ask(Path(folder)))
        megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    for one, other in zip(whole, same, strict=True):
        assert one.kept == other.kept
        for side, again in zip(one[:3], other[:3], strict=True):
            assert all(map(np.array_equal, side, again))
    costs = (reading, opening, making, knowing, writing, finding)
    return f"| {len(table.examples):,} | {' | '.join(f'{cost:.2f}' for cost in costs)} | {megabytes:.1f} |"


def main() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = read(hydra.compose("config", sys.argv[1:]))
    print("| pairs | data read | tokenizer opened | tokens made | known | written | found in a file | MB |")
    print("|---|---|---|---|---|---|---|---|")
    print(measure(run))


if __name__ == "__main__":
    main()

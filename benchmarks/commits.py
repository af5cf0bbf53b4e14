"""What bringing an artifact to the disk costs, beside the same commit without it. Prints a Markdown table.

python benchmarks/commits.py [--repeats 15] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

from w2sd.pipeline.store import Store

SIZES = (0.01, 1, 100)  # megabytes, in six files
N_FILES = 6


def commit(store: Store, key: str, megabytes: float) -> float:
    """Seconds that an artifact of this size takes, written and committed."""
    content = b"\0" * int(megabytes * 1e6 / N_FILES)
    began = time.perf_counter()
    with store.writing({"kind": "train", "key": key, "version": 1, "params": {}, "inputs": {}}) as folder:
        for n in range(N_FILES):
            (folder / str(n)).write_bytes(content)
    return time.perf_counter() - began


def main() -> None:
    """Take turns with and without, in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--folder", help="on the disk that is asked about; by default the one for temporary files")
    arguments = parser.parse_args()
    print("| megabytes | without, ms | with, ms |\n|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = Store(Path(folder))
        for size in SIZES:
            took: dict[bool, list[float]] = {False: [], True: []}
            for n in range(arguments.repeats):
                with mock.patch("os.fsync"):
                    took[False].append(commit(store, f"{n:011x}a", size))
                took[True].append(commit(store, f"{n:011x}b", size))
            print(f"| {size} | {1000 * median(took[False]):.0f} | {1000 * median(took[True]):.0f} |", flush=True)


if __name__ == "__main__":
    main()

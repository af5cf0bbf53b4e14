"""Hydra composes a sweep once to learn that it is one, and each job twice: to check the batch, and to launch the job.

To compose takes an eighth of a second: most of what a job costs that finds everything in the store. Hydra has no hook
for it, so three of its methods are replaced while it runs, two of them in modules of its own that another minor version
may move: that is why `pyproject.toml` holds it below the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig


@contextmanager
def composed_once() -> Iterator[None]:
    """Inside, -m is taken at its word, and a job is launched from the composition that was checked.

    Without -m Hydra still asks the configuration for `hydra.mode`. A job that is launched in another process than the
    check composes for itself, as ever.
    """
    ask, check, compose = Hydra.get_mode, Sweeper.validate_batch_is_legal, ConfigLoaderImpl.load_sweep_config
    checked: dict[tuple[str, ...], DictConfig] = {}

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        return None if {"-m", "--multirun"} & set(sys.argv) else ask(self, config_name, overrides)

    def validate_batch_is_legal(self: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        assert self.hydra_context is not None
        assert self.config is not None
        for job in batch:
            checked[tuple(job)] = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))

    def load_sweep_config(self: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        known = checked.pop(tuple(sweep_overrides), None)
        return compose(self, master_config, sweep_overrides) if known is None else known

    Hydra.get_mode = get_mode  # type: ignore[method-assign]
    Sweeper.validate_batch_is_legal = validate_batch_is_legal  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = load_sweep_config  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = ask  # type: ignore[method-assign]
        Sweeper.validate_batch_is_legal = check  # type: ignore[method-assign]
        ConfigLoaderImpl.load_sweep_config = compose  # type: ignore[method-assign]

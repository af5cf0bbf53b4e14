"""Where learning curves and results go. CSV always; W&B where asked for, and imported only then."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from w2sd.errors import Refused, StageFailed, choose

COUNTED = ("n_all", "n", "flips", "rate", "rate_lo", "rate_hi")  # of a region


class RunName(NamedTuple):
    """What a logged run is called and where it belongs."""

    experiment: str  # the group
    kind: str  # the job type: a stage kind, or "summary"
    key: str
    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class Csv:
    """`metrics.csv` in the stage's folder of logs; nothing leaves the machine."""

    def check(self) -> None:
        """Nothing is needed."""

    @contextmanager
    def loggers(self, run: RunName) -> Iterator[list[Any]]:
        """Lightning loggers for one stage."""
        from pytorch_lightning.loggers import CSVLogger

        yield [CSVLogger(run.folder.parent, name=run.folder.name, version="", flush_logs_every_n_steps=1)]

    def summarise(self, run: RunName, metrics: dict[str, Any], diagnostics: dict[str, Any]) -> None:
        """The result of a job is in the store and on the page already."""


@dataclass(frozen=True)
class Wandb:
    """One W&B run per executed training stage and one summary run per job; CSV as well."""

    project: str = "w2sd"
    entity: str = ""  # empty: your default
    mode: str = "online"  # online | offline

    def __post_init__(self) -> None:
        choose("mode", self.mode, ("online", "offline"))

    def check(self) -> None:
        """Refuse runs that W&B would not take: without a key, or with one that cannot be one. Asks no server."""
        if self.mode == "offline":
            return
        wandb, why = self._import(), "no key is configured"
        wandb.teardown()  # it remembers the mode and the key of an earlier job of a sweep
        try:
            is_known = wandb.login(prompt=False, verify=False)
        except wandb.Error as error:  # a key that is too short, say
            is_known, why = False, str(error)
        if not is_known:
            accepted = f"a login ({why}): `wandb login` or WANDB_API_KEY; logger=wandb_offline needs none"
            raise Refused("logger", "wandb", accepted)

    @contextmanager
    def loggers(self, run: RunName) -> Iterator[list[Any]]:
        with Csv().loggers(run) as csv, self._run(run) as wandb_run:
            from pytorch_lightning.loggers import WandbLogger

            yield [*csv, WandbLogger(experiment=wandb_run)]

    def summarise(self, run: RunName, metrics: dict[str, Any], diagnostics: dict[str, Any]) -> None:
        """Config, headline metrics and upstream keys of a job, as one run; its regions where it has a conflict."""
        with self._run(run) as wandb_run:
            wandb_run.summary.update({name: value for name, value in metrics.items() if value is not None})
            if regions := list(_regions(diagnostics)):
                table = self._import().Table(columns=["kind", "region", *COUNTED], data=regions)
                wandb_run.log({"regions": table, "regions_figure": _drawing(diagnostics)})

    @contextmanager
    def _run(self, run: RunName) -> Iterator[Any]:
        wandb = self._import()
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            wandb_run = wandb.init(
                project=self.project,
                entity=self.entity or None,
                dir=str(run.folder),
                group=run.experiment,
                job_type=run.kind,
                name=f"{run.kind}-{run.key}",
                config=run.config,
                mode=self.mode,
                reinit="finish_previous",
            )
        except wandb.Error as error:  # a server that is out of reach, a key that it does not know
            reason = " ".join(str(error).split())
            raise StageFailed(f"logger: W&B began no run ({reason}); logger=wandb_offline needs no network") from error
        try:
            yield wandb_run
        finally:
            wandb_run.finish()  # a run left open would swallow the next job of a sweep

    def _import(self) -> Any:
        # Before the import: otherwise even offline mode looks a host up.
        os.environ["WANDB_MODE"] = self.mode
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        return wandb


def conclude(loggers: Iterable[Any], figures: dict[str, Any]) -> None:
    """Put what a stage came to into the summary of its W&B run, if it has one; a curve of it would be one point."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({name: value for name, value in figures.items() if value is not None})


def _regions(diagnostics: dict[str, Any]) -> Iterator[list[Any]]:
    """What flips in each region, by confidence and, where it is known, by true knowledge: eight rows at most."""
    from w2sd.metrics.regions import REGIONS

    for kind in ("region", "region_true"):
        for region in REGIONS:
            if f"{kind}/{region}/n" in diagnostics:
                yield [kind, region, *(diagnostics.get(f"{kind}/{region}/{part}") for part in COUNTED)]


def _drawing(diagnostics: dict[str, Any]) -> Any:
    """The regions as they are on the page."""
    import wandb
    from PIL import Image

    from w2sd.report import deception_figures, figures

    figure = deception_figures.draw_regions([("", deception_figures.count_regions([diagnostics]))])
    return wandb.Image(Image.open(BytesIO(figures.to_png("regions", figure))))

"""How Lightning is to run a stage: in one process, or in a group whose checkpoints are those of one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch.optim import Optimizer

from w2sd.models.sharding import part, whole
from w2sd.trainer import Trainer


def strategy_of(trainer: Trainer) -> Strategy | str:
    """Lightning's part of a trainer."""
    if trainer.strategy == "fsdp2":
        return Sharded(trainer.world)
    return trainer.strategy


class Sharded(ModelParallelStrategy):
    """FSDP2 that saves and loads what one process would: one file, whole tensors, under the same names and numbers."""

    lightning_restore_optimizer = True

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole(dict(self.lightning_module.state_dict()), self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return whole(optimizer.state_dict(), self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        here = self.lightning_module.state_dict()
        saved = {name: part(value, here[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(saved, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            trained = [weights for group in optimizer.param_groups for weights in group["params"]]
            state = {
                n: {name: part(value, trained[n]) for name, value in kept.items()} for n, kept in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

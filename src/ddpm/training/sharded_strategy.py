"""Lightning's strategy for trainer=fsdp (`ddpm.training.sharding`)."""

from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType


def strategy(name: str) -> str | Strategy:
    """The value of `trainer.strategy`. Lightning's own `fsdp` supports neither averages nor the CPU."""
    return Sharded() if name == "fsdp" else name


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for a sharded `DiffusionModule` (`configure_model`). Checkpoints have complete tensors."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file by our reader, which never executes code."""
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)
        for optimizer, numbered in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(numbered, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=options)
        return checkpoint

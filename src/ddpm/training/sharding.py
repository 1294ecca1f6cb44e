"""Each process holds a share of the weights, their averages, gradients and moments, and gathers a block when it is due.

torch's fully_shard (FSDP2) does it, as in "ZeRO" (Rajbhandari et al. 2020). Checkpoints are those of any other run.
"""

from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, OptimStateKeyType, fully_shard
from torch.distributed.tensor import DTensor

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def strategy(name: str) -> str | Strategy:
    """What Lightning takes for `trainer.strategy`; its own `fsdp` knows neither our averages nor the CPU."""
    return Sharded() if name == "fsdp" else name


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """In place. The blocks, which are the innermost lists' elements, are gathered one by one; the rest together."""
    if isinstance(network, FSDPModule):
        return
    lists = [each for each in network.modules() if isinstance(each, nn.ModuleList)]
    for blocks in lists:
        for block in blocks:
            if not any(isinstance(inner, nn.ModuleList) for inner in block.modules()):
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def gather(network: nn.Module) -> None:
    """Puts the whole network on each process, which may then use it more often than another does."""
    for part in sharded_modules(network):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(network: nn.Module) -> None:
    for part in sharded_modules(network):
        part.set_reshard_after_forward(True, recurse=False)
        part.reshard()


def sharded_modules(network: nn.Module) -> list[FSDPModule]:
    return [part for part in network.modules() if isinstance(part, FSDPModule)]


def full_tensor(tensor: Tensor) -> Tensor:
    """To be called on all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for what `DiffusionModule.configure_model` has sharded. Files hold whole tensors."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Through our reader, which takes a file for data only."""
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)
        for optimizer, numbered in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(numbered, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=options)
        return checkpoint


def full_weights(network: nn.Module) -> dict[str, Any]:
    """The whole network on the CPU of the first process. To be called on all."""
    if isinstance(network, FSDPModule):
        return get_model_state_dict(network, options=WHOLE)
    return {name: weight.cpu() for name, weight in network.state_dict().items()}

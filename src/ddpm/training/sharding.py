"""Sharding of weights, averages, gradients and moments over processes, which gather one block at a time.

It uses torch's fully_shard (FSDP2), as in "ZeRO" (Rajbhandari et al. 2020). Checkpoints have the same format as others.
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
    """The value of `trainer.strategy`. Lightning's own `fsdp` supports neither averages nor the CPU."""
    return Sharded() if name == "fsdp" else name


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard in place. Elements of innermost ModuleLists are gathered one by one, and all other weights together."""
    if isinstance(network, FSDPModule):
        return
    lists = [each for each in network.modules() if isinstance(each, nn.ModuleList)]
    for blocks in lists:
        for block in blocks:
            if not any(isinstance(inner, nn.ModuleList) for inner in block.modules()):
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def gather(network: nn.Module) -> None:
    """Gather the complete network on each process, so that processes may use it unequally often."""
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
    """The complete tensor; to be called on all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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


def full_weights(network: nn.Module) -> dict[str, Any]:
    """The complete weights on the CPU of the first process; to be called on all processes."""
    if isinstance(network, FSDPModule):
        return get_model_state_dict(network, options=WHOLE)
    return {name: weight.cpu() for name, weight in network.state_dict().items()}

"""Sharding of weights, averages, gradients and moments over processes, which gather one block at a time.

It uses torch's fully_shard (FSDP2), as in "ZeRO" (Rajbhandari et al. 2020). Checkpoints have the same format as others.
"""

from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


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


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A complete tensor, equal on all processes, sharded as `like` is; to be called on all processes."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor


def full_weights(network: nn.Module) -> dict[str, Any]:
    """The complete weights on the CPU of the first process; to be called on all processes."""
    if isinstance(network, FSDPModule):
        return get_model_state_dict(network, options=WHOLE)
    return {name: weight.cpu() for name, weight in network.state_dict().items()}

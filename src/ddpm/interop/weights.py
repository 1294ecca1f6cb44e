"""Read and write weights in safetensors files, and rename weights of other programs."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]


def save_tensors(weights: Weights, path: Path) -> None:
    """Write copies of the tensors, because safetensors refuses tensors that share memory, such as tied weights."""
    apart = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
    save_file(apart, path, metadata={"format": "pt"})


def load_tensors(path: Path, remedy: str = "") -> Weights:
    """Read the tensors. remedy: end of the error message."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}{remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}{remedy}") from None


def to_ours(
    weights: Weights,
    wanted: Weights,
    their_keys: Callable[[str], list[str]],
    reorder: Callable[[str, Tensor], Tensor] = lambda key, weight: weight,
) -> Weights:
    """Weights of another program under our keys, in float32. wanted: our state dict, for its keys and shapes.

    their_keys: maps one of our keys to the keys that are concatenated for it. reorder: reorders the rows of a weight.
    """
    left, renamed = dict(weights), {}
    for key, like in wanted.items():
        keys = their_keys(key)
        if missing := [name for name in keys if name not in left]:
            raise ValueError(f"the weights lack {missing[0]}")
        weight = torch.cat([torch.atleast_1d(left.pop(name)) for name in keys]).float()
        if weight.shape != like.shape[: weight.dim()] or weight.numel() != like.numel():
            raise ValueError(f"{keys[0]} has shape {[*weight.shape]}, but {[*like.shape]} is needed")
        renamed[key] = reorder(key, weight).reshape(like.shape)
    if left:
        raise ValueError(f"the weights have {min(left)}, which such a network does not have")
    return renamed

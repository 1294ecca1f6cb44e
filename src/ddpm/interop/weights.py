"""Weights in files of safetensors, and under the names that other programs have for them."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]


def save_tensors(weights: Weights, path: Path) -> None:
    """Each in memory of its own: safetensors refuses tensors that share it, as tied weights do."""
    apart = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
    save_file(apart, path, metadata={"format": "pt"})


def load_tensors(path: Path, remedy: str = "") -> Weights:
    """remedy: what an error ends with."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}{remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}{remedy}") from None


def to_ours(
    weights: Weights,
    wanted: Weights,
    their_keys: Callable[[str], list[str]],
    reorder: Callable[[str, Tensor], Tensor] = lambda key, weight: weight,
) -> Weights:
    """Their weights under our names, float32. wanted: our state dict, for its keys and shapes.

    their_keys: of one of ours those of theirs that it is made of. reorder: the rows of one of ours.
    """
    left, renamed = dict(weights), {}
    for key, like in wanted.items():
        keys = their_keys(key)
        if missing := [name for name in keys if name not in left]:
            raise ValueError(f"the weights lack {missing[0]}")
        weight = torch.cat([torch.atleast_1d(left.pop(name)) for name in keys]).float()
        if weight.shape != like.shape[: weight.dim()] or weight.numel() != like.numel():
            raise ValueError(f"{keys[0]} has shape {[*weight.shape]}, where {[*like.shape]} is needed")
        renamed[key] = reorder(key, weight).reshape(like.shape)
    if left:
        raise ValueError(f"the weights have {min(left)}, which such a network has not")
    return renamed

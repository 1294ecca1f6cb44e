"""A checkpoint as plain data, whoever wrote it: nothing in it is run, and nothing in it names files of one's own."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.checkpoint.integrity import damage
from ddpm.checkpoint.layout import upgraded
from ddpm.stored_config import checked
from ddpm.untrusted import refuse_more_than_tensors


def read_checkpoint(path: Path, name: str = "ckpt", known: Container[str] = ()) -> dict[str, Any]:
    """Its parts are `config`, which is safe to build from, `state_dict` and what Lightning adds.

    name: the option that gave the path. known: code that today's configuration names itself.
    """
    stored = read_data(path, name, known)
    if "state_dict" not in stored:
        raise ValueError(f"{name}={path} is not a checkpoint of this project: it has no 'state_dict'")
    weights = stored["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(key, str) and sound(key, weights[key]) for key in weights):
        raise ValueError(f"{name}={path} is not a checkpoint of this project: its 'state_dict' holds more than weights")
    try:
        return upgraded(stored)
    except ValueError as error:
        raise ValueError(f"{name}={path}: {error}") from None


def read_data(path: Path, name: str, known: Container[str] = ()) -> dict[str, Any]:
    """Any file of torch.save that holds a `config`, which is safe to build from when it is returned."""
    if not path.is_file():
        raise ValueError(f"{name} must be a checkpoint file, and there is none at {str(path)!r}")
    try:
        problem = damage(path)
        if problem:
            raise ValueError(problem)
        refuse_more_than_tensors(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes; torch's own text advises to trust it
        reason = str(error) if type(error) in (ValueError, PermissionError) else f"damaged ({type(error).__name__})"
        raise ValueError(f"{name}={path} cannot be read as data: {reason}; nothing of it was run") from None
    if not isinstance(stored, dict) or "config" not in stored:
        raise ValueError(f"{name}={path} is not a checkpoint of this project: it has no 'config' and 'state_dict'")
    stored["config"] = checked(stored["config"], f"{name}={path}", known)
    return stored


def sound(key: str, value: Any) -> bool:
    """Whether a tensor has all its elements in the file; one number spread by strides over terabytes has not."""
    if key.endswith("_extra_state"):
        return not isinstance(value, Tensor)
    whole = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return whole and value.numel() * value.element_size() <= value.untyped_storage().nbytes()

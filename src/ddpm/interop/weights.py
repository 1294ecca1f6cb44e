"""Read and write weights in files of safetensors and torch.save, and rename weights of other programs."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddpm.base import untrusted
from ddpm.base.file_kind import describe_foreign_file

Weights = dict[str, Tensor]
NOTHING: Mapping[str, str] = MappingProxyType({})


def save_tensors(weights: Weights, path: Path, about: Mapping[str, str] = NOTHING) -> None:
    """Write copies of the tensors, because safetensors refuses tensors that share memory, such as tied weights.

    about: further metadata of the file.
    """
    apart = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
    try:
        save_file(apart, path, metadata={"format": "pt", **about})
        sort_metadata(path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def load_tensors(path: Path, remedy: str = "") -> Weights:
    """Read the tensors. remedy: end of the error message."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}{remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}{remedy}") from None


def sort_metadata(path: Path) -> None:
    """Sort the metadata of a file in place, because safetensors writes them in another order each time.

    The file begins with the length of its header, eight bytes, and the header, JSON that spaces may follow.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))


def load_metadata(path: Path) -> dict[str, str]:
    """The texts that a file of `save_tensors` holds beside its tensors; empty if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def read_file(path: Path, inert: Iterable[str] | None = ()) -> Any:
    """What torch.save wrote; its tensors lie in the file until they are used. Nothing in it is run.

    inert: as of `untrusted.load_tensors`.
    """
    if not path.is_file():
        raise ValueError(f"ckpt must be a file of weights, and there is none at {str(path)!r}")
    try:
        with ZipFile(path) as archive:
            if broken := archive.testzip():
                raise ValueError(f"{broken} in it is damaged")
        return untrusted.load_tensors(path, inert, mmap=True)
    except Exception as error:  # whatever a damaged or hostile file provokes; torch's own text advises to trust it
        is_plain = type(error) in (ValueError, PermissionError)
        foreign = describe_foreign_file(path)
        reason = f"it is {foreign}" if foreign else error if is_plain else type(error).__name__
        raise ValueError(f"ckpt={path} cannot be read as data: {reason}; no code in it was run") from None


def state_dict_of(stored: Any, path: Path) -> Weights:
    """`stored`, if it is a state dict of weights. path: what errors call the file that it came from."""
    if not isinstance(stored, dict) or not stored:
        raise ValueError(f"ckpt={path} must hold a state dict, tensors by their names")
    for key, value in stored.items():
        if not isinstance(key, str) or not _is_whole(value):
            raise ValueError(f"ckpt={path} must hold a state dict of weights, and {str(key)[:100]!r} is none")
    return dict(stored)


def _is_whole(value: Any) -> bool:
    """Whether it is a tensor with all its numbers in the file, not one spread over terabytes by strides."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.is_floating_point() and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def shape_of(weights: Weights, key: str, dims: int) -> list[int]:
    if key not in weights:
        raise ValueError(f"it lacks {key}")
    shape = [*weights[key].shape]
    if len(shape) != dims or not all(shape):
        raise ValueError(f"{key} has shape {shape}, and {dims} numbers above 0 are needed")
    return shape


def shapes_of(builder: type[nn.Module], settings: dict[str, Any]) -> Weights:
    """The state dict of a network of stated sizes, without memory for it."""
    try:
        with torch.device("meta"):
            return builder(**settings).state_dict()
    except (RuntimeError, TypeError) as error:  # raised by torch for impossible sizes
        raise ValueError(f"its network cannot be built: {str(error).splitlines()[0]}") from error


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """ValueErrors within it begin with the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"ckpt={path}: {error}") from None


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

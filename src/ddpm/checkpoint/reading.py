"""Read checkpoints as plain data, also from untrusted sources: code in them is never run."""

import threading
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddpm.base.file_kind import describe_foreign_file
from ddpm.base.untrusted import load_tensors
from ddpm.checkpoint.integrity import damage_in, open_with_hash
from ddpm.checkpoint.layout import upgrade_layout
from ddpm.checkpoint.stored_config import check_config


def read_checkpoint(path: Path, name: str = "ckpt", known: Container[str] = ()) -> dict[str, Any]:
    """The verified and upgraded content: `config`, which is safe to build from, `state_dict`, and what Lightning adds.

    name: the option that gave the path, for error messages. known: targets that the current configuration names itself.
    Raises ValueError if the file is missing, damaged or not a checkpoint of this project.
    """
    stored = read_data(path, name, known)
    if "state_dict" not in stored:
        raise ValueError(f"{name}={path} is not a checkpoint of this project: it has no 'state_dict'")
    state = stored["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) and is_intact(key, state[key]) for key in state):
        raise ValueError(f"{name}={path} is not a checkpoint of this project: its 'state_dict' has more than weights")
    try:
        return upgrade_layout(stored)
    except ValueError as error:
        raise ValueError(f"{name}={path}: {error}") from None


def read_data(path: Path, name: str, known: Container[str] = ()) -> dict[str, Any]:
    """The content of a file of torch.save with a `config`, which is checked and safe to build from."""
    if path not in HELD.files and not path.is_file():
        hint = "" if name == "resume" else f"; {name}=latest is the newest under runs/"
        raise ValueError(f"{name} must be a checkpoint file, and there is none at {str(path)!r}{hint}")
    try:
        if path in HELD.files:
            stored = data_in(*HELD.files[path])
        else:
            file, written = open_with_hash(path)
            with file:
                stored = data_in(file, written)
    except Exception as error:  # any error; torch's own message advises to trust the file
        reason = str(error) if type(error) in (ValueError, PermissionError) else f"damaged ({type(error).__name__})"
        if foreign := describe_foreign_file(path):
            reason = f"it is {foreign}"
        raise ValueError(f"{name}={path} cannot be read as data: {reason}; no code in it was run") from None
    if not isinstance(stored, dict) or "config" not in stored:
        raise ValueError(
            f"{name}={path} is not a checkpoint of this project: it is {describe_content(stored)}, without the "
            "names of weights by which files of OpenAI, denoising diffusion GANs and CompVis are known; convert it to "
            "one of these or to a folder of diffusers"
        )
    stored["config"] = check_config(stored["config"], f"{name}={path}", known)
    return stored


def describe_content(stored: Any) -> str:
    """What a file of torch.save of another program holds."""
    if isinstance(stored, Tensor):
        return f"one tensor of shape {list(stored.shape)}"
    if not isinstance(stored, dict):
        return f"a {type(stored).__name__}"
    if "pytorch-lightning_version" in stored:
        return "a Lightning checkpoint of another program"
    if stored and all(isinstance(value, Tensor) for value in stored.values()):
        return f"a state dict of {len(stored)} weights, the first {str(next(iter(stored)))[:100]!r}"
    return f"a dictionary of {', '.join(repr(str(key)[:40]) for key in list(stored)[:5]) or 'nothing'}"


def data_in(file: BinaryIO, written: bytes | None) -> Any:
    problem = damage_in(file, written)
    if problem:
        raise ValueError(problem)
    return load_tensors(file)


@contextmanager
def holding() -> Iterator[None]:
    """Within this context, files opened by `hold` stay readable, even if a running training removes them."""
    with ExitStack() as stack:
        HELD.stacks.append(stack)
        try:
            yield
        finally:
            HELD.stacks.pop()
            HELD.files.clear()


def hold(path: Path) -> None:
    """Keep a file open until the end of `holding`; no effect outside of it. Raises FileNotFoundError."""
    if HELD.stacks and path not in HELD.files:
        HELD.files[path] = open_with_hash(path)
        HELD.stacks[-1].enter_context(HELD.files[path][0])


class Held(threading.local):
    """Open files of each thread."""

    def __init__(self) -> None:
        self.stacks: list[ExitStack] = []
        self.files: dict[Path, tuple[BinaryIO, bytes | None]] = {}


HELD = Held()


def is_intact(key: str, value: Any) -> bool:
    """Whether the file contains all elements of a tensor. Strides can make one number look like terabytes."""
    if key.endswith("_extra_state"):
        return not isinstance(value, Tensor)
    whole = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return whole and value.numel() * value.element_size() <= value.untyped_storage().nbytes()

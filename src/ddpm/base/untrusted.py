"""Readers for untrusted files. Files are parsed as data; code in them is never run."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, is_zipfile

import yaml

from ddpm.base.memory import require_memory


def printable(text: str) -> str:
    """The text with spaces for control characters, so that it keeps to its line."""
    return "".join(each if each.isprintable() else " " for each in text)


def json_data(text: str, where: str) -> Any:
    """The value of a JSON text. where: name of the text in error messages."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} must be JSON: {error}") from None


def json_file(path: Path) -> Any:
    return json_data(text_file(path), str(path))


def yaml_file(path: Path) -> Any:
    """The value of a YAML file of plain data."""
    try:
        return yaml.safe_load(text_file(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from None


def text_file(path: Path) -> str:
    """The text of a regular file. Pipes and devices raise ValueError, because they may never end."""
    if not path.is_file():
        raise ValueError(f"{path} must be a file, but {'is something else' if path.exists() else 'does not exist'}")
    require_memory(path.stat().st_size, str(path))
    return utf8(path.read_bytes(), str(path))


def utf8(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} must be UTF-8 text: {error}") from None


class Inert:
    """In the place of an object whose class is not loaded: it has the object's fields, as data, and no methods."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def load_tensors(file: Path | IO[bytes], inert: Iterable[str] | None = (), **options: Any) -> Any:
    """What torch.save wrote, on the CPU. `weights_only` lets it hold tensors, numbers, texts and their containers.

    inert: classes, as "argparse.Namespace", whose objects become `Inert`; None: all that are not known. Their code is
    not imported.
    """
    import torch  # two seconds, for commands that read a YAML file alone

    def start() -> Path | IO[bytes]:
        if not isinstance(file, Path):
            file.seek(0)
        return file

    if inert is None:
        inert = torch.serialization.get_unsafe_globals_in_checkpoint(start())
    with torch.serialization.safe_globals([(Inert, name) for name in inert]):
        if is_zipfile(file):  # the older format is none, and is not compressed
            with ZipFile(file) as archive:
                require_memory(sum(entry.file_size for entry in archive.infolist()), "the inflated archive")
            if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(start()):
                names = ", ".join(unsafe)
                raise ValueError(
                    f"it refers to {names}; only tensors and plain values are allowed, as those of "
                    "torch.save(model.state_dict(), FILE)"
                )
        return torch.load(start(), map_location="cpu", weights_only=True, **options)

"""Readers for untrusted files. Files are parsed as data; code in them is never run."""

import json
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, is_zipfile

import yaml

from ddpm.base.memory import require_memory


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


def load_tensors(file: Path | IO[bytes], **options: Any) -> Any:
    """The content of a file of torch.save, on the CPU: tensors, numbers, texts and containers (`weights_only`)."""
    import torch  # imported here, because it takes two seconds

    def start() -> Path | IO[bytes]:
        if not isinstance(file, Path):
            file.seek(0)
        return file

    if is_zipfile(file):  # the older format is not a zip file and is not compressed
        with ZipFile(file) as archive:
            require_memory(sum(entry.file_size for entry in archive.infolist()), "the uncompressed archive")
        if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(start()):
            raise ValueError(f"it refers to {', '.join(unsafe)}; only tensors and plain values are allowed")
    return torch.load(start(), map_location="cpu", weights_only=True, **options)

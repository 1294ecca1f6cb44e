"""Files that somebody else wrote: of a bounded size, and read as data.

An archive of torch.save is opened by torch with `weights_only=True`, which runs nothing. Two things it lets through are
refused here before: compressed entries, of which a few kilobytes become gigabytes, and calls that torch holds to be
harmless but that tensors do not need, such as `bytearray(10**11)`.
"""

import json
import pickletools
import re
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile

import yaml

MAX_JSON_BYTES = 16 * 2**20
"""Of a JSON file that describes a model or a result: a thousand times what they have."""

PLAIN_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|device|\w+Storage)"
    r"|torch (b?float|complex|u?int)\d\w*|torch bool|torch\.serialization _get_layout|__builtin__ set|builtins set"
)
"""What pickles of tensors, numbers, texts and their containers call by name."""

CALLS_BY_OTHER_ROADS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def json_data(text: str, where: str) -> Any:
    """The value of a JSON text. where: what an error calls it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} must be JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} must be JSON of a few levels, but is nested thousands deep") from None


def json_file(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    return json_data(text_file(path, max_bytes), str(path))


class PlainYaml(yaml.SafeLoader):
    """Without aliases, of which a few lines become billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not read")
        return super().compose_node(parent, index)


def yaml_file(path: Path, max_bytes: int = 2**20) -> Any:
    """The value of a YAML file of plain data."""
    try:
        return PlainYaml(text_file(path, max_bytes)).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML that can be read: {str(error).splitlines()[0]}") from None


def text_file(path: Path, max_bytes: int) -> str:
    """The text of a regular file; pipes and devices, which never end, are not opened."""
    if not path.is_file():
        raise ValueError(f"{path} must be a file, and is {'something else' if path.exists() else 'not there'}")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} must have at most {max_bytes:,} bytes, and has {size:,}")
    return utf8(path.read_bytes(), str(path))


def utf8(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} must be a text in UTF-8: {error}") from None


def refuse_more_than_tensors(file: Path | IO[bytes]) -> None:
    """ValueError unless a zip archive of torch.save asks for nothing but tensors and plain containers."""
    with ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch.save does not do")
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("it holds two entries of one name")
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is not an archive of torch.save")
        for operation, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if operation.name in CALLS_BY_OTHER_ROADS:
                raise ValueError("it asks for more than tensors and plain values")
            if operation.name == "GLOBAL" and not PLAIN_GLOBALS.fullmatch(argument):
                raise ValueError(
                    f"it asks for {argument.replace(' ', '.')!r}, which is more than tensors and plain values"
                )

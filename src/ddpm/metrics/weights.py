"""Weights of feature extractors: files are found or downloaded, hashed, and read as tensors, never as code.

torch-fidelity and torchmetrics unpickle files (`weights_only=False`), so they never get a path of a file.
"""

import hashlib
import http.client
import io
import re
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.atomic import write_atomically
from ddpm.base.untrusted import load_tensors

SUFFIXES = (".pth", ".pt", ".safetensors")
CONNECT_SECONDS = 20


class Weights(NamedTuple):
    tensors: dict[str, Tensor]
    sha256: str


BUNDLED = {
    "features": "features=cifar10 for colour images, features=mnist for digits",
    "perceptual": "perceptual=features",
}
"""By group, what needs no download."""


@dataclass(frozen=True)
class Published:
    """A file of weights as published by its authors.

    file: its name in torch hub's cache, which other programs use too. is_program: whether it is a TorchScript program
    that contains the tensors.
    """

    url: str
    file: str
    sha256: str
    megabytes: int
    is_program: bool = False

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def read(self, field: str = "features") -> bytes:
        """The bytes from the cache, or downloaded into it. ValueError if the hash is wrong."""
        cached = self.path.is_file()
        data = self.path.read_bytes() if cached else self._download(field)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            where = f"{self.path} is damaged: delete it" if cached else f"{self.url} sent another file"
            raise ValueError(f"{where} (its sha256 is not {self.sha256[:8]}...), or give {field}.weights=PATH")
        if not cached:
            write_atomically(self.path, data)
        return data

    def _download(self, field: str) -> bytes:
        print(f"Downloading {self.url} ({self.megabytes} MB) to {self.path}", flush=True)
        try:
            with urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as response:
                return response.read()
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise ValueError(
                f"{field} needs the weights {self.file}, which are not in {self.path.parent} and could not be "
                f"downloaded from {self.url} ({error}). Put the file there, give {field}.weights=PATH, or choose "
                f"bundled ones, whose values are not comparable with these: {BUNDLED[field]}"
            ) from None


@dataclass(frozen=True)
class WeightsFile:
    """A local file, or the published one (path=None). sha256: required hash of the local file; None: any.

    field: the group of the configuration that an error names.
    """

    path: Path | None
    published: Published | None = None
    sha256: str | None = None
    field: str = "features"

    @classmethod
    def choose(
        cls, weights: str | Path | None, sha256: str | None, published: Published | None = None, field: str = "features"
    ) -> Self:
        """The file for the fields `weights` and `sha256` of a configuration."""
        if weights is None and sha256 is not None:
            raise ValueError(f"{field}.sha256 has no effect without {field}.weights; leave it out")
        if weights is None:
            return cls(None, published, field=field)
        if not isinstance(weights, str | Path) or Path(weights).suffix not in SUFFIXES:
            check.fail(f"{field}.weights", weights, f"a path ending in {', '.join(SUFFIXES)}")
        path = Path(weights).expanduser()
        if not path.is_file():
            check.fail(f"{field}.weights", str(weights), "an existing file")
        if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
            check.fail(f"{field}.sha256", sha256, "64 hexadecimal digits, as sha256sum prints them")
        return cls(path, published, sha256 and sha256.lower(), field)

    @property
    def source(self) -> Path:
        return self.path or self.published.path

    def load(self) -> Weights:
        """The tensors and the hash, both from the same bytes."""
        data = self.path.read_bytes() if self.path else self.published.read(self.field)
        found = hashlib.sha256(data).hexdigest()
        if self.path and self.sha256 not in (None, found):
            raise ValueError(
                f"{self.field}.weights: {self.path} has sha256 {found}, and {self.field}.sha256 is {self.sha256}"
            )
        if self.is_published(found) and self.published.is_program:
            return Weights(tensors_of_program(data), found)
        return Weights(read_tensors(data, self.source, self.field), found)

    def is_published(self, sha256: str) -> bool:
        return self.published is not None and sha256 == self.published.sha256


def read_tensors(data: bytes, source: Path, field: str = "features") -> dict[str, Tensor]:
    """A flat mapping of names to tensors; ValueError for anything else."""
    try:
        tensors = safetensors.torch.load(data) if source.suffix == ".safetensors" else load_tensors(io.BytesIO(data))
    except Exception as error:  # of a damaged or hostile file; torch's own message advises to trust it
        raise ValueError(
            f"{field}.weights: {source} contains more than tensors, or is damaged ({type(error).__name__}); none of "
            "its code was run. Use the published file or a .safetensors file"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{field}.weights: {source} must hold a flat state dict of tensors")
    return tensors


def tensors_of_program(data: bytes) -> dict[str, Tensor]:
    """The tensors of a TorchScript program. Call it only after the hash of the program was verified."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
        return torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()


def load_exact(network: nn.Module, tensors: dict[str, Tensor], path: Path, what: str, field: str = "features") -> None:
    """Load exactly these tensors into `network`, else ValueError. what: name of the network in the error."""
    try:
        network.load_state_dict(tensors, assign=any(parameter.is_meta for parameter in network.parameters()))
    except RuntimeError:  # a long list of keys
        raise not_those_of(what, tensors, path, field) from None


def not_those_of(what: str, tensors: dict[str, Tensor], source: Path, field: str = "features") -> ValueError:
    return ValueError(f"{field}.weights: the {len(tensors)} tensors of {source} are not those of {what}")

"""The files behind the features: found or downloaded, hashed, and read as tensors, never as code.

torch-fidelity and torchmetrics unpickle whatever path they are given (`weights_only=False`), so they are given none.
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


@dataclass(frozen=True)
class Published:
    """A file of weights as its makers publish it.

    file: its name in torch hub's cache, where other programs look for it too. is_program: TorchScript with the tensors
    inside.
    """

    url: str
    file: str
    sha256: str
    megabytes: int
    is_program: bool = False

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def read(self) -> bytes:
        """From the cache, or downloaded into it, and only if the hash is right."""
        cached = self.path.is_file()
        data = self.path.read_bytes() if cached else self._download()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            where = f"{self.path} is damaged: delete it" if cached else f"{self.url} sent another file"
            raise ValueError(f"{where} (its sha256 is not {self.sha256[:8]}...), or give features.weights=PATH")
        if not cached:
            write_atomically(self.path, data)
        return data

    def _download(self) -> bytes:
        print(f"Downloading {self.url} ({self.megabytes} MB) to {self.path}", flush=True)
        try:
            with urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as response:
                return response.read()
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise ValueError(
                f"these features need the weights {self.file}, which are not in {self.path.parent} and could not be "
                f"downloaded from {self.url} ({error}). Put the file there, give features.weights=PATH, "
                "or choose bundled features, whose values are not comparable with these: features=cifar10 for colour "
                "images, features=mnist for digits"
            ) from None


@dataclass(frozen=True)
class WeightsFile:
    """A local file, or the published one (path None). sha256: what the local file must have, None: anything."""

    path: Path | None
    published: Published | None = None
    sha256: str | None = None

    @classmethod
    def choose(cls, weights: str | Path | None, sha256: str | None, published: Published | None = None) -> Self:
        """From the fields `weights` and `sha256` of a configuration."""
        if weights is None and sha256 is not None:
            raise ValueError("features.sha256 has no effect without features.weights; leave it out")
        if weights is None:
            return cls(None, published)
        if not isinstance(weights, str | Path) or Path(weights).suffix not in SUFFIXES:
            check.fail("features.weights", weights, f"a path ending in {', '.join(SUFFIXES)}")
        path = Path(weights).expanduser()
        if not path.is_file():
            check.fail("features.weights", str(weights), "an existing file")
        if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
            check.fail("features.sha256", sha256, "64 hexadecimal digits, as sha256sum prints them")
        return cls(path, published, sha256 and sha256.lower())

    @property
    def source(self) -> Path:
        return self.path or self.published.path

    def load(self) -> Weights:
        """The bytes that are hashed are those that are read."""
        data = self.path.read_bytes() if self.path else self.published.read()
        found = hashlib.sha256(data).hexdigest()
        if self.path and self.sha256 not in (None, found):
            raise ValueError(
                f"features.weights: {self.path} has sha256 {found}, and features.sha256 says {self.sha256}"
            )
        if self.is_published(found) and self.published.is_program:
            return Weights(tensors_of_program(data), found)
        return Weights(read_tensors(data, self.source), found)

    def is_published(self, sha256: str) -> bool:
        return self.published is not None and sha256 == self.published.sha256


def read_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """A flat mapping of names to tensors; all else is refused."""
    try:
        tensors = safetensors.torch.load(data) if source.suffix == ".safetensors" else load_tensors(io.BytesIO(data))
    except Exception as error:  # whatever a damaged or hostile file provokes; torch's own text advises to trust it
        raise ValueError(
            f"features.weights: {source} holds more than tensors, or is damaged ({type(error).__name__}); nothing of "
            "it was run. Use the published file or a .safetensors"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"features.weights: {source} must hold a flat state dict of tensors")
    return tensors


def tensors_of_program(data: bytes) -> dict[str, Tensor]:
    """Of a TorchScript program, which is opened only if its hash is known to be right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
        return torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()


def load_exact(network: nn.Module, tensors: dict[str, Tensor], source: Path, what: str) -> None:
    """Give `network` these tensors, all of them and no others. what: what an error calls the network."""
    try:
        network.load_state_dict(tensors, assign=any(parameter.is_meta for parameter in network.parameters()))
    except RuntimeError:  # a page of key names
        raise not_those_of(what, tensors, source) from None


def not_those_of(what: str, tensors: dict[str, Tensor], source: Path) -> ValueError:
    return ValueError(f"features.weights: the {len(tensors)} tensors of {source} are not those of {what}")

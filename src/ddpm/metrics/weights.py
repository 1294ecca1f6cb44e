"""The files behind the features: found or downloaded, hashed, and read as tensors, never as code.

torch-fidelity and torchmetrics unpickle whatever path they are given (`weights_only=False`), so they are given none.
"""

import hashlib
import http.client
import io
import re
import urllib.request
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

    file: its name in torch hub's cache, where other programs look for it too. needed_by: who cannot do without, for
    the error, as "FID and IS need Inception weights".
    """

    url: str
    file: str
    sha256: str
    megabytes: int
    needed_by: str

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
                f"{self.needed_by}, the file {self.file}. It is not in {self.path.parent} and could not be "
                f"downloaded from {self.url} ({error}). Put it there, or give features.weights=PATH"
            ) from None


@dataclass(frozen=True)
class WeightsFile:
    """A local file, or the published one (path None). sha256: what the local file must have, None: anything."""

    path: Path | None
    published: Published
    sha256: str | None

    @classmethod
    def choose(cls, weights: str | Path | None, sha256: str | None, published: Published) -> Self:
        """From the fields `weights` and `sha256` of a configuration."""
        path = check_path(weights)
        if sha256 is not None and path is None:
            raise ValueError("features.sha256 has no effect without features.weights: the published file has its own")
        return cls(path, published, check_sha256(sha256))

    @property
    def source(self) -> Path:
        return self.path or self.published.path

    def read(self) -> bytes:
        return read_verified(self.path, self.sha256) if self.path else self.published.read()

    def load(self) -> Weights:
        return weights_of(self.read(), self.source)

    def name(self, kind: str, sha256: str) -> str:
        """`kind` alone for the published file; any other carries the first digits of its hash."""
        return kind if sha256 == self.published.sha256 else f"{kind}-{sha256[:8]}"


def check_path(weights: str | Path | None) -> Path | None:
    """`weights` as a path to an existing file with a known suffix; None passes."""
    if weights is None:
        return None
    if not isinstance(weights, str | Path) or Path(weights).suffix not in SUFFIXES:
        check.fail("features.weights", weights, f"a path ending in {', '.join(SUFFIXES)}")
    path = Path(weights).expanduser()
    if not path.is_file():
        check.fail("features.weights", str(weights), "an existing file")
    return path


def check_sha256(sha256: str | None) -> str | None:
    """In small letters; None passes."""
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        check.fail("features.sha256", sha256, "64 hexadecimal digits, as sha256sum prints them")
    return sha256 and sha256.lower()


def read_verified(path: Path, sha256: str | None) -> bytes:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise ValueError(f"features.weights: {path} has sha256 {found}, and features.sha256 says {sha256}")
    return data


def load_weights(path: Path, sha256: str | None = None) -> Weights:
    return weights_of(read_verified(path, sha256), path)


def weights_of(data: bytes, source: Path) -> Weights:
    """The bytes that are hashed are those that are read. All but a flat mapping of names to tensors is refused."""
    try:
        if source.suffix == ".safetensors":
            tensors = safetensors.torch.load(data)
        else:
            tensors = load_tensors(io.BytesIO(data))
    except Exception as error:  # whatever a damaged or hostile file provokes; torch's own text advises to trust it
        raise ValueError(
            f"features.weights: {source} holds more than tensors, or is damaged ({type(error).__name__}); nothing of "
            "it was run. Use the published file or a .safetensors"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"features.weights: {source} must hold a flat state dict of tensors")
    return Weights(tensors, hashlib.sha256(data).hexdigest())


def load_exact(network: nn.Module, tensors: dict[str, Tensor], source: Path, what: str) -> None:
    """Give `network` these tensors, all of them and no others. what: what an error calls the network."""
    try:
        network.load_state_dict(tensors, assign=any(parameter.is_meta for parameter in network.parameters()))
    except RuntimeError:  # a page of key names
        raise not_those_of(what, tensors, source) from None


def not_those_of(what: str, tensors: dict[str, Tensor], source: Path) -> ValueError:
    return ValueError(f"features.weights: the {len(tensors)} tensors of {source} are not those of {what}")

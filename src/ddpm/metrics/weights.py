"""The file behind the Inception features: found or downloaded, hashed, and read as tensors, never as code.

torch-fidelity and torchmetrics unpickle whatever path they are given (`weights_only=False`), so they are given none.
"""

import hashlib
import http.client
import io
import urllib.request
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

import safetensors.torch
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from ddpm import check
from ddpm.atomic import write_whole
from ddpm.untrusted import refuse_more_than_tensors

STANDARD_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Inception of 2015-12-05 converted from TensorFlow; torch-fidelity and pytorch-fid publish the same 95,628,359 bytes
under two names, both of which end in the first eight digits. A converted copy (safetensors) has another hash."""

SUFFIXES = (".pth", ".pt", ".safetensors")
CONNECT_SECONDS = 20


class Weights(NamedTuple):
    tensors: dict[str, Tensor]
    sha256: str


def standard_path() -> Path:
    """Where torch-fidelity and torchmetrics keep the file they download: torch hub's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]


def check_path(weights: str | Path | None) -> Path | None:
    """`weights` as a path to an existing file with a known suffix; None (the standard file) passes."""
    if weights is None:
        return None
    if not isinstance(weights, str | Path) or Path(weights).suffix not in SUFFIXES:
        check.fail("metric.weights", weights, f"a path ending in {', '.join(SUFFIXES)}")
    path = Path(weights).expanduser()
    if not path.is_file():
        check.fail("metric.weights", str(weights), "an existing file")
    return path


def load_weights(path: Path | None) -> Weights:
    """The tensors of `path`, or of the standard file (None), which is downloaded where it is not in the cache.

    The bytes that are hashed are the bytes that are read. Anything but a flat mapping of names to tensors is refused.
    """
    data = path.read_bytes() if path else _standard_bytes()
    source = path or standard_path()
    try:
        if source.suffix == ".safetensors":
            tensors = safetensors.torch.load(data)
        else:
            if is_zipfile(io.BytesIO(data)):  # torch's older format is none, and has nothing to inflate
                refuse_more_than_tensors(io.BytesIO(data))
            tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes; torch's own text advises to trust it
        raise ValueError(
            f"metric.weights: {source} holds more than tensors, or is damaged ({type(error).__name__}); nothing of it "
            "was run. Use torch-fidelity's file or a .safetensors"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"metric.weights: {source} must hold a flat state dict of tensors")
    return Weights(tensors, hashlib.sha256(data).hexdigest())


def _standard_bytes() -> bytes:
    path = standard_path()
    cached = path.is_file()
    data = path.read_bytes() if cached else _download(path)
    if hashlib.sha256(data).hexdigest() != STANDARD_SHA256:
        where = f"{path} is damaged: delete it" if cached else f"{URL_INCEPTION_V3} sent another file"
        raise ValueError(f"{where} (its sha256 is not {STANDARD_SHA256[:8]}...), or give metric.weights=PATH")
    if not cached:
        write_whole(path, data)
    return data


def _download(path: Path) -> bytes:
    print(f"Downloading {URL_INCEPTION_V3} (96 MB) to {path}", flush=True)
    try:
        with urllib.request.urlopen(URL_INCEPTION_V3, timeout=CONNECT_SECONDS) as response:
            return response.read()
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise ValueError(
            f"FID and IS need Inception weights, the file {path.name}. It is not in {path.parent} and could not be "
            f"downloaded from {URL_INCEPTION_V3} ({error}). Put it there, or give metric.weights=PATH"
        ) from None

"""How a number was made, stored beside the number: without it two figures of the same name cannot be compared."""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

import ddpm
from ddpm import check
from ddpm.atomic import write_whole
from ddpm.untrusted import json_file


def library_versions() -> dict[str, str]:
    """Versions of what has a hand in the values."""
    libraries = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "numpy")
    return {"ddpm": ddpm.__version__, "python": platform.python_version()} | {name: version(name) for name in libraries}


def device_name(device: torch.device | str) -> str:
    """'cuda: NVIDIA H100 80GB HBM3', or 'cpu: x86_64'."""
    device = torch.device(device)
    return f"{device.type}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()}"


@dataclass(frozen=True)
class EvaluationProtocol:
    """Everything that has to be equal before two values are compared.

    data_hash: of the images' content, not of the file. preprocessing: the way from image to network input.
    extractor_hash: sha256 of the weights file. weights: of the denoiser, e.g. 'ema 0.9999' or 'raw'.
    `Evaluator.provenance()` gives the first five.
    """

    num_generated: int
    num_real: int  # 0 where no real images are used
    preprocessing: str
    extractor: str
    extractor_hash: str
    data: str
    split: str
    data_hash: str
    sampler: str
    steps: int
    seed: int
    weights: str
    device: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=library_versions)

    def __post_init__(self) -> None:
        check.positive_int("num_generated", self.num_generated)
        check.non_negative_int("num_real", self.num_real)
        check.positive_int("steps", self.steps)
        check.non_negative_int("seed", self.seed)
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.type is str and not (isinstance(value, str) and value):
                check.fail(each.name, value, "a text that is not empty")


class Result(NamedTuple):
    metrics: dict[str, float]
    protocol: EvaluationProtocol


def write_result(path: str | Path, metrics: Mapping[str, float], protocol: EvaluationProtocol) -> None:
    """JSON `{"metrics": {...}, "protocol": {...}}`, written whole; one rank writes. Only finite values."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            check.fail(name, value, "finite to be stored")
    content = {"metrics": dict(metrics), "protocol": dataclasses.asdict(protocol)}
    write_whole(Path(path), (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_result(path: str | Path) -> Result:
    """What `write_result` wrote; a file with other fields is refused by their names."""
    try:
        content = json_file(Path(path))
        metrics, stored = dict(content["metrics"]), dict(content["protocol"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a result of evaluate.py: JSON with 'metrics' and 'protocol'") from None
    expected = {each.name for each in dataclasses.fields(EvaluationProtocol)}
    if stored.keys() != expected:
        raise ValueError(
            f"{path} has another protocol than ddpm {ddpm.__version__}: missing {sorted(expected - stored.keys())}, "
            f"unknown {sorted(stored.keys() - expected)}; evaluate again"
        )
    return Result(metrics, EvaluationProtocol(**stored))

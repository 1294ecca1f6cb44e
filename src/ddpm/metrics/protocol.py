"""How a number was made, stored beside the number: without it two figures of the same name cannot be compared."""

import dataclasses
import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

import ddpm
from ddpm.base import check
from ddpm.base.atomic import write_atomically
from ddpm.base.untrusted import json_file
from ddpm.metrics.score import Estimate


def library_versions() -> dict[str, str]:
    """Versions of what has a hand in the values."""
    libraries = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "numpy")
    return {"ddpm": ddpm.__version__, "python": platform.python_version()} | {name: version(name) for name in libraries}


def device_name(device: torch.device | str) -> str:
    """'cuda: NVIDIA H100 80GB HBM3', or 'cpu: x86_64'."""
    device = torch.device(device)
    return f"{device.type}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()}"


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How was measured: all that has to be equal before two values are compared.

    data_hash: of the reference images' content, not of the file. preprocessing: the way from image to network input.
    extractor_hash: sha256 of the weights. scores: what made each value, with its settings, by short name.
    `Evaluator.provenance()` gives all but the reference's three. The defaults are of what looks at no features and at
    no data.
    """

    num_generated: int
    num_real: int = 0  # real images
    preprocessing: str = "none"
    extractor: str = "none"
    extractor_hash: str = "none"
    scores: Mapping[str, str]
    data: str = "none"
    split: str = "none"
    data_hash: str = "none"

    def __post_init__(self) -> None:
        check.positive_int("num_generated", self.num_generated)
        check.non_negative_int("num_real", self.num_real)
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.type is str and not (isinstance(value, str) and value):
                check.fail(each.name, value, "a text that is not empty")


@dataclass(frozen=True)
class Environment:
    """What should not change a value by more than rounding."""

    device: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=library_versions)


@dataclass(frozen=True)
class Result:
    """metrics: values by name. errors: standard errors, of the values that have one.

    subject: what was measured, as plain values: of a model its checkpoint, step and all that decides its images (see
    `ddpm.generation.identity.identity`); of images made elsewhere their path and content hash.
    """

    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    protocol: EvaluationProtocol
    subject: Mapping[str, Any]
    environment: Environment

    def __post_init__(self) -> None:
        for name, value in (*self.metrics.items(), *self.errors.items()):
            if not math.isfinite(value):
                check.fail(name, value, "finite to be stored")

    @classmethod
    def of(cls, estimates: Mapping[str, Estimate], **rest: Any) -> Self:
        metrics = {name: estimate.value for name, estimate in estimates.items()}
        return cls(metrics, {n: e.error for n, e in estimates.items() if e.error is not None}, **rest)

    @property
    def estimates(self) -> dict[str, Estimate]:
        return {name: Estimate(value, self.errors.get(name)) for name, value in self.metrics.items()}


def result_name(result: Result) -> str:
    """ "00010000_fid_inception_50k_1f2e3d4c": step or run, first metric, and a digest of all that was measured and how.

    So results of another sampler, seed or reference are other files.
    """
    step = result.subject.get("step")
    start = result.subject["run"] if step is None else f"{step:08d}"
    about = [dataclasses.asdict(result.protocol), dict(result.subject)]
    return f"{start}_{next(iter(result.metrics))}_{short_digest(about)}"


def short_digest(content: Any) -> str:
    """Eight digits that tell plain containers from each other."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def write_result(path: str | Path, result: Result) -> None:
    """JSON with the fields of `Result`, written whole; one rank writes."""
    content = json.dumps(dataclasses.asdict(result), indent=2, allow_nan=False) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), content.encode())


def read_result(path: str | Path) -> Result:
    """What `write_result` wrote; a file with other fields is refused by their names."""
    try:
        content = json_file(Path(path))
        parts = {name: dict(content[name]) for name in ("metrics", "errors", "protocol", "subject", "environment")}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a result of this version's evaluate.py: JSON with metrics, errors, protocol, subject and "
            "environment"
        ) from None
    for name, kind in (("protocol", EvaluationProtocol), ("environment", Environment)):
        expected = {each.name for each in dataclasses.fields(kind)}
        if parts[name].keys() != expected:
            raise ValueError(
                f"{path} has another {name} than ddpm {ddpm.__version__}: missing "
                f"{sorted(expected - parts[name].keys())}, unknown {sorted(parts[name].keys() - expected)}; "
                "evaluate again"
            )
        parts[name] = kind(**parts[name])
    return Result(**parts)

"""Results with their evaluation protocol, which must be equal before two values of the same name are compared."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ddpm
from ddpm.base import check
from ddpm.base.atomic import write_atomically
from ddpm.base.environment import ADDED, Environment
from ddpm.base.untrusted import json_file
from ddpm.metrics.score import Estimate


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """All settings of an evaluation that must be equal before two values are compared.

    data_hash: of the content of the reference images, not of the file. preprocessing: from image to network input.
    extractor_hash: sha256 of the weights. scores: the description of the score of each value, by short name.
    `Evaluator.provenance()` returns all fields except data, split and data_hash. The defaults are for metrics without
    features or data.
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
        if not (isinstance(self.scores, Mapping) and all(isinstance(text, str) for text in self.scores.values())):
            check.fail("scores", self.scores, "texts by name")


@dataclass(frozen=True)
class Result:
    """metrics: values by name. errors: standard errors by name, if known.

    subject: what was measured, as plain values: for a model its checkpoint, step and all that determines its images
    (see `ddpm.generation.identity.identity`); for a folder of images its path and content hash.
    """

    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    protocol: EvaluationProtocol
    subject: Mapping[str, Any]
    environment: Environment

    def __post_init__(self) -> None:
        for name, value in (*self.metrics.items(), *self.errors.items()):
            if not (isinstance(value, float | int) and abs(value) <= sys.float_info.max):
                check.fail(name, value, "finite to be stored")

    @classmethod
    def of(cls, estimates: Mapping[str, Estimate], **rest: Any) -> Self:
        metrics = {name: estimate.value for name, estimate in estimates.items()}
        return cls(metrics, {n: e.error for n, e in estimates.items() if e.error is not None}, **rest)

    @property
    def estimates(self) -> dict[str, Estimate]:
        return {name: Estimate(value, self.errors.get(name)) for name, value in self.metrics.items()}


def result_name(result: Result) -> str:
    """ "00010000_fid_inception_50k_1f2e3d4c": step or run, first metric, and a digest of subject and protocol.

    So results of different samplers, seeds or references have different names.
    """
    step = result.subject.get("step")
    start = result.subject["run"] if step is None else f"{step:08d}"
    about = [dataclasses.asdict(result.protocol), dict(result.subject)]
    return f"{start}_{next(iter(result.metrics))}_{short_digest(about)}"


def short_digest(content: Any) -> str:
    """The first eight hexadecimal digits of the sha256 of plain containers."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def write_result(path: str | Path, result: Result) -> None:
    """Write the fields of `Result` as JSON, atomically; call it on one rank."""
    content = json.dumps(dataclasses.asdict(result), indent=2, allow_nan=False) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), content.encode())


def read_result(path: str | Path) -> Result:
    """Read a file of `write_result`; ValueError if it has other fields."""
    try:
        content = json_file(Path(path))
        parts = {name: dict(content[name]) for name in ("metrics", "errors", "protocol", "subject", "environment")}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a result of this version's evaluate.py: JSON with metrics, errors, protocol, subject and "
            "environment"
        ) from None
    parts["environment"] = ADDED | parts["environment"]
    for name, kind in (("protocol", EvaluationProtocol), ("environment", Environment)):
        expected = {each.name for each in dataclasses.fields(kind)}
        if parts[name].keys() != expected:
            raise ValueError(
                f"{path} has another {name} than that of ddpm {ddpm.__version__}: missing "
                f"{sorted(expected - parts[name].keys())}, unknown {sorted(parts[name].keys() - expected)}; "
                "evaluate again"
            )
    try:
        protocol, environment = EvaluationProtocol(**parts["protocol"]), Environment(**parts["environment"])
        return Result(**{**parts, "protocol": protocol, "environment": environment})
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None

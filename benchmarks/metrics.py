"""Metrics of this project and of torch-fidelity on the same images and the same Inception with random weights.

"features": uint8 images to 2048 features and 1008 logits, 32 images of 32 x 32 in one batch. "FID": distance of two
sets of 2048 features, given their moments. "FID's error bar": 50 resamples of 50,000 images. "KID" and "precision,
recall": 2,000 against 2,000 images. "memory": what one evaluation adds to its process, with 2048 features of 32 x 32
images by a random projection. `num_resamples=0` streams; error bars keep 4 bytes per feature and image.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from benchmarks.interleaved import measure
from ddpm.metrics.extractors import inception
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.fid import FrechetDistance, frechet_distance
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.prdc import PrecisionRecall
from ddpm.metrics.score import FeatureSet, Moments
from ddpm.metrics.weights import Weights, WeightsFile

D = 2048


def random_inception() -> tuple[fidelity.FeatureExtractorInceptionV3, Inception]:
    """torch-fidelity's extractor as it is, and ours, with the same weights."""
    never = patch.multiple(fidelity, load_state_dict_from_url=lambda *_, **__: None)
    with never, patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"):
        their = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    for part in their.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    weights = Weights(their.state_dict(), inception.STANDARD.sha256)
    with patch.object(WeightsFile, "load", lambda file: weights):
        return their, Inception().to("cpu")


def features(n: int, seed: int) -> Tensor:
    scale = torch.logspace(0, -3, D)
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * scale


def moments(rows: Tensor) -> Moments:
    total, outer = torch.zeros(D, dtype=torch.float64), torch.zeros(D, D, dtype=torch.float64)
    for some in rows.split(4096):
        total += some.double().sum(0)
        outer.addmm_(some.double().T, some.double())
    return Moments.from_sums(len(rows), total, outer)


def rows(rounds: int) -> list[dict[str, Any]]:
    their, ours = random_inception()
    pixels = torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8)
    real, generated = features(5000, 0), features(5000, 1)
    a, b = moments(real), moments(generated)
    theirs = [fid_features_to_statistics(some) for some in (real, generated)]
    few = [FeatureSet(2000, None, some[:2000]) for some in (real, generated)]
    pairs = {
        "features": (lambda: their(pixels), lambda: ours(pixels, ["pooled", "logits"])),
        "FID": (lambda: fid_statistics_to_metric(*theirs, verbose=False), lambda: frechet_distance(a, b)),
        "precision, recall": (
            lambda: prc_features_to_metric(few[1].rows, few[0].rows, save_cpu_ram=False, verbose=False),
            lambda: PrecisionRecall()(*few),
        ),
    }
    found = []
    with torch.inference_mode():
        for work, (first, second) in pairs.items():
            timing = measure({"torch-fidelity": first, "this project": second}, rounds, warmup=1)
            for program, each in timing.items():
                found.append(row(work, program, f"{each.seconds:.2f} s", f"{each.speed:.2f}"))
    found.append(row("KID", "this project, by torch-fidelity's function", once(lambda: KernelDistance()(*few))))
    many = features(50_000, 2)
    known = FeatureSet(5000, a), FeatureSet(50_000, moments(many), many)
    found.append(row("FID's error bar", "this project", once(lambda: FrechetDistance(num_resamples=50)(*known))))
    for n, num_resamples in ((5000, 0), (50_000, 0), (50_000, 50)):
        command = [sys.executable, "-m", "benchmarks.metrics", str(n), str(num_resamples)]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        found.append(row(f"memory of FID, {n:,} images, num_resamples={num_resamples}", "this project", grown))
    return found


def row(work: str, program: str, cost: str, speed: str = "") -> dict[str, str]:
    return {"work": work, "program": program, "cost": cost, "speed": speed}


def once(run: Callable[[], object]) -> str:
    start = time.perf_counter()
    run()
    return f"{time.perf_counter() - start:.1f} s"


class Projection:
    dims = {"pooled": D}  # noqa: RUF012
    name, preprocessing, weights_hash = "projection", "uint8", "0" * 64

    def __init__(self) -> None:
        self.matrix = torch.randn(3 * 32 * 32, D, generator=torch.Generator().manual_seed(0)) / 5000

    def to(self, device: object) -> "Projection":
        return self

    def __call__(self, pixels: Tensor, layers: object) -> dict[str, Tensor]:
        return {"pooled": pixels.flatten(1).float() @ self.matrix}


def memory(n: int, num_resamples: int) -> None:
    """What an evaluation of n images adds to this process at its peak, in MB."""
    import warnings

    from ddpm.metrics.evaluator import Evaluator

    warnings.simplefilter("ignore")
    evaluator = Evaluator(Projection(), [FrechetDistance(num_resamples=num_resamples)])
    images = torch.rand(64, 3, 32, 32) * 2 - 1
    frechet_distance(*[Moments(9, torch.zeros(D).double(), torch.eye(D).double())] * 2)  # LAPACK's own memory
    before = peak()
    for first in range(0, n, 64):
        ids = torch.arange(first, min(first + 64, n))
        evaluator.update_fake(images[: len(ids)].roll(first, 2), ids)
        if first < 4096:
            evaluator.update_real(images[: len(ids)], ids)
    evaluator.compute()
    print(f"{(peak() - before) / 1024:.0f} MB")


def peak() -> int:
    """KiB. Not getrusage's figure, which a process inherits from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    memory(int(sys.argv[1]), int(sys.argv[2]))

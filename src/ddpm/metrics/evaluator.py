"""Scores from batches of images: each image passes the extractor once, whatever is computed from its features."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Self, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ddpm import check
from ddpm.metrics.features import Extractor
from ddpm.metrics.images import to_rgb, to_uint8
from ddpm.metrics.score import Score

P = ParamSpec("P")
R = TypeVar("R")


def count_name(n: int) -> str:
    """5000 is '5k', 33 is '33', 1500 is '1500': short where short is exact."""
    return f"{n // 1000}k" if n and n % 1000 == 0 else str(n)


def _plain_tensors(method: Callable[P, R]) -> Callable[P, R]:
    """No gradients, and no inference mode either: sums made in inference mode could not be added to outside of it."""
    return torch.inference_mode(False)(torch.no_grad()(method))


class Evaluator:
    """Takes real and generated images in [-1, 1] on any number of ranks; gives values named like `fid_inception_5k`.

    Call `to(device)` before the sampling starts: it loads the extractor, so that missing weights are known at once.
    Under torch.distributed (Lightning's included) each rank updates with its own share and all ranks call `compute`.
    A share may be empty, but no image may come twice: samplers that pad ranks to equal lengths are refused.
    Not an nn.Module: held by a callback or a LightningModule, the extractor stays out of checkpoints and EMA copies.

    batch_size: images per pass of the extractor, for memory and speed alone.
    """

    def __init__(self, extractor: Extractor, scores: Sequence[Score], batch_size: int = 64) -> None:
        if not scores:
            check.fail("scores", scores, "at least one score")
        for score in scores:
            check.one_of("the layer of a score", score.layer, extractor.dims)
        self.extractor = extractor
        self.scores = tuple(scores)
        self.batch_size = check.positive_int("batch_size", batch_size)
        self.device = torch.device("cpu")
        self._real_ids, self._fake_ids = _Census("real"), _Census("generated")
        self._counts: tuple[int, int] | None = None
        self._warned: set[str] = set()

    @property
    def needs_real(self) -> bool:
        """False where no score looks at real images: the pass over the data set can be left out."""
        return any(score.needs_real for score in self.scores)

    @_plain_tensors
    def to(self, device: torch.device | str) -> Self:
        """Move everything, loading the extractor if it is not yet; images are brought to this device by `update_*`."""
        self.device = torch.device(device)
        for part in (self.extractor, self._real_ids, self._fake_ids, *self.scores):
            part.to(self.device)
        return self

    def update_real(self, images: Tensor, ids: Tensor) -> None:
        """images: float `[B, 1 or 3, H, W]` in [-1, 1]; ids: int64 `[B]`, the numbers in the data set, each once."""
        if not self.needs_real:
            raise ValueError("update_real: none of these scores uses real images; ask needs_real before the data set")
        self._update(images, ids, real=True)

    def update_fake(self, images: Tensor, ids: Tensor) -> None:
        """images: float `[B, 1 or 3, H, W]` in [-1, 1]; ids: int64 `[B]`, the numbers of the samples, each once."""
        self._update(images, ids, real=False)

    @_plain_tensors
    def compute(self) -> dict[str, float]:
        """All values, the same on every rank. All ranks must call it: the first thing it does is to wait for them."""
        num_real, num_generated = self._real_ids.compute(), self._fake_ids.compute()
        for score in self.scores:
            if num_generated < score.min_images or (score.needs_real and num_real < score.min_images):
                raise ValueError(
                    f"{type(score).__name__} needs at least {score.min_images} images of a kind, "
                    f"got {num_generated} generated and {num_real} real"
                )
        self._counts = num_real, num_generated
        suffix = f"{self.extractor.name}_{count_name(num_generated)}"
        values: dict[str, float] = {}
        for score in self.scores:
            self._warn_once(score.caveat(num_real, num_generated))
            values |= {f"{key}_{suffix}": value for key, value in score.compute().items()}
        return values

    def provenance(self) -> dict[str, Any]:
        """The fields of an `EvaluationProtocol` that are known here, for the values that `compute` last gave."""
        if self._counts is None:
            raise ValueError("provenance belongs to values: call compute first")
        return {
            "num_generated": self._counts[1],
            "num_real": self._counts[0],
            "preprocessing": self.extractor.preprocessing,
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.weights_hash,
        }

    @_plain_tensors
    def reset_fake(self) -> None:
        """Forget the generated images; the real ones stay, for the next evaluation during a training."""
        self._counts = None
        self._fake_ids.clear()
        for score in self.scores:
            score.reset_fake()

    @_plain_tensors
    def _update(self, images: Tensor, ids: Tensor, real: bool) -> None:
        if ids.dtype != torch.int64 or ids.shape != images.shape[:1]:
            raise ValueError(f"ids must be int64 [{len(images)}], one an image, got {ids.dtype} {list(ids.shape)}")
        pixels = to_rgb(to_uint8(images))
        (self._real_ids if real else self._fake_ids).update(ids.to(self.device))
        for some, theirs in zip(pixels.split(self.batch_size), ids.split(self.batch_size), strict=True):
            features = self.extractor(some.to(self.device))
            for score in self.scores:
                if score.needs_real or not real:
                    score.update(features[score.layer], theirs.to(self.device), real)

    def _warn_once(self, caveat: str | None) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if caveat and not (distributed and torch.distributed.get_rank()) and caveat not in self._warned:
            self._warned.add(caveat)
            warnings.warn(caveat, stacklevel=5)  # past the wrappers of compute, to whoever called it


class _Census(Metric):
    """Which images there were over all ranks: their number, and that none came twice."""

    full_state_update = False
    ids: list[Tensor]

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.add_state("ids", [], dist_reduce_fx="cat")
        self.clear()

    def clear(self) -> None:
        self.reset()
        self.update(torch.zeros(0, dtype=torch.int64, device=self.device))  # no rows: see InceptionScore.reset_fake

    def update(self, ids: Tensor) -> None:
        self.ids.append(ids)

    def compute(self) -> int:
        numbers, times = dim_zero_cat(self.ids).unique(return_counts=True)
        twice = numbers[times > 1].tolist()
        if twice:
            raise ValueError(
                f"{len(twice)} {self.kind} images were given more than once, e.g. number {twice[0]}: a sampler that "
                "pads the ranks to equal length repeats images (DistributedSampler does); shard by number instead"
            )
        return len(numbers)

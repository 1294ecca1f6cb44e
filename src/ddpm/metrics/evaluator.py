"""Scores of batches of images: each image passes the extractor once, for all scores."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, Self, TypeVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.images import to_rgb, to_uint8
from ddpm.metrics.bank import FeatureBank, is_first_rank
from ddpm.metrics.classes import describe_classes, refuse_unlabelled_samples
from ddpm.metrics.extractors.base import Extractor
from ddpm.metrics.extractors.preprocess import NUM_PIXEL_FEATURES, PIXELS, pixel_features
from ddpm.metrics.score import Estimate, FeatureSet, Score

P = ParamSpec("P")
R = TypeVar("R")


def count_name(n: int) -> str:
    """ "5k" for 5000, "33" for 33, and "1500" for 1500: short if that is exact."""
    return f"{n // 1000}k" if n and n % 1000 == 0 else str(n)


def _plain_tensors(method: Callable[P, R]) -> Callable[P, R]:
    """Disable gradients and inference mode: tensors of inference mode cannot be updated outside of it."""
    return torch.inference_mode(False)(torch.no_grad()(method))


class Evaluator:
    """Takes real and generated images in [-1, 1] on any number of ranks; returns values such as `fid_inception_5k`.

    Call `to(device)` before sampling: it loads the extractor, so that missing weights raise early.
    Under torch.distributed (Lightning's included), each rank updates with its own share, and all ranks call `compute`.
    A share may be empty, but no image may be given twice: samplers that pad ranks to equal lengths raise ValueError.
    Not an nn.Module, so that checkpoints and EMA copies of a module that holds it do not contain the extractor.

    Scores whose layer the extractor lacks are in `left_out`; ValueError if none is left.
    batch_size: images per pass of the extractor; it affects only memory and speed.
    """

    def __init__(self, extractor: Extractor, scores: Sequence[Score], batch_size: int = 64) -> None:
        if not scores:
            check.fail("scores", scores, "at least one score")
        self.extractor = extractor
        self.dims = {**extractor.dims, PIXELS: NUM_PIXEL_FEATURES}
        self.scores = tuple(score for score in scores if score.layer in self.dims)
        if not self.scores:
            raise ValueError(
                f"{scores[0].describe()} needs features with the layer {scores[0].layer!r}, and those of "
                f"{type(extractor).__name__} have {', '.join(extractor.dims)}; choose {scores[0].remedy}"
            )
        self.left_out = tuple(score for score in scores if score not in self.scores)
        self.batch_size = check.positive_int("features_batch_size", batch_size)
        self.device = torch.device("cpu")
        self.layers = tuple(dict.fromkeys(score.layer for score in self.scores))
        self._real, self._fake = (self._bank(real) for real in (True, False))
        self._known_real: Mapping[str, FeatureSet] | None = None
        self._counts: tuple[int, int] | None = None  # real and generated, of the last compute
        self._made_by: dict[str, str] = {}
        self._warned: set[str] = set()

    @property
    def needs_real(self) -> bool:
        """False if no score uses real images, so that the pass over the data set can be skipped."""
        return any(score.needs_real for score in self.scores)

    def names(self, real: Tensor | None, generated: Tensor) -> list[str]:
        """The names of the values of `compute`, before images are generated. ValueError if it cannot compute them.

        real, generated: labels int64 `[N]`, -1 for none; real is None if the number of real images is unknown."""
        if real is not None:
            self.refuse_too_few("real", len(real))
        self.refuse_too_few("generated", len(generated))
        made_by: dict[str, str] = {}
        for score in self.scores:
            if score.needs_labels:
                refuse_unlabelled_samples(generated, score.describe())
            rows = torch.empty(0, self.dims[score.layer])
            score.refuse(FeatureSet(0, rows=rows, labels=real), FeatureSet(0, rows=rows, labels=generated))
            classes = (generated if score.needs_labels or real is None else real).unique().tolist()
            found = {name.format(k) for name in score.values for k in classes if k >= 0 or "{" not in name}
            self._note(found, score.describe(), made_by)
        return [f"{name}_{self.extractor.name}_{count_name(len(generated))}" for name in made_by]

    @_plain_tensors
    def to(self, device: torch.device | str) -> Self:
        """Move everything, and load the extractor if needed. `update_*` then moves images to this device."""
        self.device = torch.device(device)
        for part in (self.extractor, self._real, self._fake):
            part.to(self.device)
        return self

    def update_real(self, images: Tensor, ids: Tensor, labels: Tensor | None = None) -> None:
        """images: float `[B, 1 or 3, H, W]` in [-1, 1]; ids: int64 `[B]`, the numbers in the data set, each once.

        labels: int64 `[B]`, -1 for none.
        """
        if not self.needs_real:
            raise ValueError("update_real: none of these scores uses real images; check needs_real first")
        self._update(self._real, images, ids, labels)

    def update_fake(self, images: Tensor, ids: Tensor, labels: Tensor | None = None) -> None:
        """images: float `[B, 1 or 3, H, W]` in [-1, 1]; ids: int64 `[B]`, the numbers of the samples, each once.

        labels: int64 `[B]`, their requested classes, -1 for none.
        """
        self._update(self._fake, images, ids, labels)

    @_plain_tensors
    def real_sets(self) -> Mapping[str, FeatureSet]:
        """The feature sets of the real images, for a cache. All ranks must call it."""
        if self._known_real is None:
            sets = self._real.sets()
            self.refuse_too_few("real", next(iter(sets.values())).num_images)
            self._known_real = sets
        return self._known_real

    def use_real(self, sets: Mapping[str, FeatureSet]) -> None:
        """Use stored feature sets in place of real images; ValueError if they lack what the scores need."""
        lacking = self.lacks(sets)
        if lacking:
            raise ValueError(lacking)
        self._known_real = {layer: known.to(self.device) for layer, known in sets.items()}

    def lacks(self, sets: Mapping[str, FeatureSet]) -> str:
        """An error message about what the scores need and `sets` do not have; empty if nothing is missing."""
        for score in self.scores:
            if not score.needs_real:
                continue
            known = sets.get(score.layer)
            if (
                known is None
                or (score.moments and known.moments is None)
                or (score.rows_of_real and known.rows is None)
            ):
                what = "each image's features" if score.rows_of_real else "mean and covariance"
                return (
                    f"{score.describe()} needs {what} of layer {score.layer!r}, which the reference does not have; "
                    "use a reference of images"
                )
            if score.moments and len(known.moments.mean) != self.dims[score.layer]:
                return (
                    f"the reference has {len(known.moments.mean)} features, and {self.extractor.name} has "
                    f"{self.dims[score.layer]} in layer {score.layer!r}: it was made with another extractor"
                )
        return ""

    @property
    def knows_real(self) -> bool:
        return self._known_real is not None

    @_plain_tensors
    def compute(self) -> dict[str, Estimate]:
        """All values, equal on all ranks. All ranks must call it, because it gathers features first."""
        real = self.real_sets() if self.needs_real else {}
        generated = self._fake.sets()
        num_real, num_generated = (next(iter(s.values())).num_images if s else 0 for s in (real, generated))
        self.refuse_too_few("generated", num_generated)
        self._counts, self._made_by = (num_real, num_generated), {}
        self.generated = generated
        suffix = f"{self.extractor.name}_{count_name(num_generated)}"
        values: dict[str, Estimate] = {}
        for score in self.scores:
            self._warn_once(score.caveat(num_real, num_generated))
            found = score(real.get(score.layer), generated[score.layer])
            classes = f" of {describe_classes(generated[score.layer].labels)}" if score.needs_labels else ""
            self._note(found, score.describe() + classes, self._made_by)
            values |= {f"{key}_{suffix}": estimate for key, estimate in found.items()}
        return values

    def provenance(self) -> dict[str, Any]:
        """The fields of an `EvaluationProtocol` that the evaluator knows, for the values of the last `compute`."""
        if self._counts is None:
            raise ValueError("provenance needs values: call compute first")
        return {
            "num_generated": self._counts[1],
            "num_real": self._counts[0],
            "preprocessing": self.extractor.preprocessing,
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.weights_hash,
            "scores": self._made_by,
        }

    def renewed(self) -> "Evaluator":
        """A new evaluator with the same extractor and scores, and no images."""
        return Evaluator(self.extractor, self.scores, self.batch_size)

    @_plain_tensors
    def reset_fake(self) -> None:
        """Forget the generated images and keep the real ones, for the next evaluation in training."""
        self._counts = None
        self._fake.clear()

    @_plain_tensors
    def _bank(self, real: bool) -> FeatureBank:
        scores = [score for score in self.scores if score.needs_real or not real]
        rows = {score.layer for score in scores if (score.rows_of_real if real else score.rows_of_generated)}
        moments = {score.layer for score in scores if score.moments}
        dims = {layer: self.dims[layer] for layer in self.layers}
        return FeatureBank("real" if real else "generated", dims, sorted(moments), sorted(rows))

    @_plain_tensors
    def _update(self, bank: FeatureBank, images: Tensor, ids: Tensor, labels: Tensor | None = None) -> None:
        for name, numbers in (("ids", ids), ("labels", ids if labels is None else labels)):
            if numbers.dtype != torch.int64 or numbers.shape != images.shape[:1]:
                raise ValueError(
                    f"{name} must be int64 [{len(images)}], one per image, got {numbers.dtype} {list(numbers.shape)}"
                )
        pixels = to_rgb(to_uint8(images))
        wanted = [layer for layer in self.layers if layer != PIXELS]
        for first in range(0, len(pixels), self.batch_size):
            some = slice(first, first + self.batch_size)
            here = pixels[some].to(self.device)
            features = self.extractor(here, wanted) if wanted else {}
            if PIXELS in self.layers:
                features = {**features, PIXELS: pixel_features(here)}
            theirs = None if labels is None else labels[some].to(self.device)
            bank.update(features, ids[some].to(self.device), theirs)

    def _note(self, found: Iterable[str], by: str, made_by: dict[str, str]) -> None:
        twice = sorted(made_by.keys() & set(found))
        if twice:
            raise ValueError(f"{by} and {made_by[twice[0]]} both give {twice[0]!r}; choose one of the two")
        made_by |= dict.fromkeys(found, by)

    def refuse_too_few(self, kind: str, num: int) -> None:
        for score in self.scores:
            if num < score.min_images and (score.needs_real or kind == "generated"):
                field = {"generated": "num_samples, in a training evaluate.num_samples", "real": "num_real"}[kind]
                raise ValueError(
                    f"{score.describe()} needs at least {score.min_images} {kind} images, got {num}: set more ({field})"
                )

    def _warn_once(self, caveat: str | None) -> None:
        if caveat and is_first_rank() and caveat not in self._warned:
            self._warned.add(caveat)
            warnings.warn(caveat, stacklevel=5)  # the caller of compute, past its wrappers

"""References of generated images: a split of a data set, a folder of images, or a mean and covariance."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Trainer

from ddpm.base.progress import ProgressDisplay
from ddpm.base.types import Batch
from ddpm.data.datamodule import ImageDataModule
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.score import FeatureSet
from ddpm.metrics.statistics import read_statistics


class Reference(Protocol):
    identity: dict[str, str]  # `data`, `split` and `data_hash` of an `EvaluationProtocol`

    @property
    def num(self) -> int:
        """The number of its images; 0 if unknown."""
        ...

    def show(self, evaluator: Evaluator, trainer: Trainer) -> None:
        """Give the evaluator what it needs of the real images; to be called on all ranks."""
        ...


class ImageReference:
    """The images of a split, or num_images of them, the same in every run. Their features are kept in the cache."""

    def __init__(self, data: ImageDataModule, split: str, num_images: int | None, cache: ReferenceCache) -> None:
        self.data, self.split, self.num_images, self.cache = data, split, num_images, cache
        self.images = data.split(split, num_images)  # raises errors of the data before any work
        self.identity = {"data": data.name, "split": split, "data_hash": data.content_hash(split, num_images)}

    @property
    def num(self) -> int:
        return len(self.images)

    def show(self, evaluator: Evaluator, trainer: Trainer, ask: Callable[[], None] = lambda: None) -> None:
        """ask: called equally often on all ranks, between batches and before features are gathered."""
        key = self.cache.key(self.identity["data_hash"], evaluator.extractor)
        known = self.cache.get(key) or {}
        if trainer.strategy.reduce_boolean_decision(not evaluator.lacks(known)):
            evaluator.use_real(known)
            return
        self.data.trainer = trainer  # the images are split over its ranks
        loader = self.data.eval_loader(self.split, self.num_images)
        num_shared = self.num // trainer.world_size // self.data.eval_batch_size  # batches that every rank has
        for number, batch in enumerate(show_progress(loader, self.num, f"features of {self.identity['data']}")):
            evaluator.update_real(batch["image"], batch["index"], batch["label"])
            if number < num_shared:
                ask()
        ask()
        self.cache.put(key, evaluator.real_sets())


class StatisticsReference:
    """Mean and covariance from an .npz file, for scores that need only these."""

    def __init__(self, path: Path) -> None:
        self.sets = {layer: FeatureSet(moments.num, moments) for layer, moments in read_statistics(path)[0].items()}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.identity = {"data": path.name, "split": "statistics", "data_hash": digest}

    @property
    def num(self) -> int:
        return next(iter(self.sets.values())).num_images

    def show(self, evaluator: Evaluator, trainer: Trainer) -> None:
        evaluator.use_real(self.sets)


class ReferenceBatch(ImageReference):
    """A reference batch of guided diffusion: mean and covariance of all real images, and some of the images (arr_0).

    Scores that need only mean and covariance use those of the file. If a score needs features of single images, those
    of arr_0 are computed.
    """

    def __init__(self, path: Path, data: ImageDataModule, cache: ReferenceCache) -> None:
        super().__init__(data, "train", None, cache)
        stated = StatisticsReference(path)
        self.sets, self.identity = stated.sets, stated.identity

    def show(self, evaluator: Evaluator, trainer: Trainer, ask: Callable[[], None] = lambda: None) -> None:
        if not evaluator.lacks(self.sets):
            evaluator.use_real(self.sets)
            return
        super().show(evaluator, trainer, ask)
        found = dict(evaluator.real_sets())
        for layer, stated in self.sets.items():
            if layer in found and len(stated.moments.mean) == evaluator.dims[layer]:
                found[layer] = replace(found[layer], moments=stated.moments)
        evaluator.use_real(found)


def show_progress(batches: Iterable[Batch], total: int, what: str) -> Iterator[Batch]:
    """Yields the batches, and displays progress now and then unless they are soon done."""
    display: Any = None
    done = 0
    try:
        for batch in batches:
            yield batch
            display = display or ProgressDisplay(what, total)
            done += len(batch["image"])
            if display.is_due(done) and done < total:
                display.show(done, f"{display.rate(done):.0f} images/s")
    finally:
        if display:
            display.close(is_done=done >= total)

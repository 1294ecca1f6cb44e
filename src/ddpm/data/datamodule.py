"""The LightningDataModule: loaders for each rank from a source of images."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from ddpm.base import check
from ddpm.data.contents import check_classes, count_classes, describe
from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.label_images import LabelledPreparation, with_label_images
from ddpm.data.labels import explain_no_labels, unlabelled, with_labels
from ddpm.data.latents import CachedLatents
from ddpm.data.loader import EvalLoader, TrainLoader
from ddpm.data.opened import OpenedData
from ddpm.data.order import choose_subset
from ddpm.data.pixels import ImageData, LabelledPixels
from ddpm.data.problems import usable
from ddpm.data.sources.base import Downloadable, Images, Source, captions_of, own_test_split
from ddpm.data.white import check_white

SPLITS = ("train", "val", "test")


class ImageDataModule(LightningDataModule):
    """Images of one source as batches in [-1, 1] (`ddpm.base.types.Batch`).

    channels, size, crop, resize, background, white: see `Preparation`. batch_size: images of one optimizer step on all
    devices together. num_val: number of held-out training images, the same ones in every run. num_train: number of
    training images among the others; None: all. test_source: source of the test split. num_classes: checked against the
    labels; None: derived from them. memory_limit_mb: data sets up to this size are decoded once and held as uint8 in
    each process; larger ones are decoded on demand in num_workers processes. verify: decode every image before
    training, also when streaming. on_broken: stop (list the
    broken files), skip, or keep (list them, and do not offer to skip them). eval_batch_size: images per device;
    None: the training micro-batch. Without a trainer, there is one device and no accumulation. latents: cache (encode
    the training images once, see `ddpm.training.callbacks.latents`) or None. labels: what the labels of all sources are
    (`ddpm.data.labels`); None: as the source has them. label_images, num_labels: the folder of
    label images (`ddpm.data.label_images`) of all sources, and the number of labels in them.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        channels: int,
        size: int | Sequence[int],
        batch_size: int,
        seed: int = 0,
        *,
        test_source: Source | None = None,
        num_train: int | None = None,
        num_val: int = 0,
        num_classes: int | None = None,
        flip: bool = False,
        crop: int | Sequence[int] | None = None,
        resize: str | None = None,
        background: str = "white",
        white: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = True,
        memory_limit_mb: int = 2048,
        verify: bool = True,
        on_broken: str = "stop",
        download: bool = False,
        latents: str | None = None,
        labels: str | None = None,
        label_images: str | None = None,
        num_labels: int | None = None,
    ):
        super().__init__()
        self.name = name
        self.source = source
        self.test_source, self.no_test_split = (test_source, "") if test_source else own_test_split(source)
        sides = check.height_width("data.size", size)
        cropped = None if crop is None else check.height_width("data.crop", crop)
        self.preparation = Preparation(channels, sides, cropped, resize, background, white)
        if labels is not None and getattr(source, "label_column", None) is not None:
            check.fail("data.source.label_column", source.label_column, f"null if data.labels is given ({labels})")
        self.labels = None if labels is None else str(labels)
        self.label_images = label_images
        if num_labels is not None:
            check.integer("data.num_labels", num_labels, low=1, high=256)
        self._stored = self.preparation if label_images is None else LabelledPreparation(self.preparation, num_labels)
        self.batch_size = check.positive_int("data.batch_size", batch_size)
        self.seed = check.non_negative_int("seed", seed)
        self._num_train = check.positive_int_or_none("data.num_train", num_train)
        self.num_val = check.non_negative_int("data.num_val", num_val)
        self.flip = check.boolean("data.flip", flip)
        self.num_workers = check.non_negative_int("data.num_workers", num_workers)
        self.pin_memory = check.boolean("data.pin_memory", pin_memory)
        self.memory_limit_mb = check.non_negative_int("data.memory_limit_mb", memory_limit_mb)
        self.verify = check.boolean("data.verify", verify)
        if on_broken != "keep":
            check.one_of("data.on_broken", on_broken, ("stop", "skip"))
        self.on_broken = on_broken
        self._num_classes = check.positive_int_or_none("data.num_classes", num_classes)
        self._eval_batch_size = check.positive_int_or_none("data.eval_batch_size", eval_batch_size)
        if on_broken == "skip" and not verify:
            raise ValueError("data.on_broken=skip needs data.verify=true: broken images are found only by decoding all")
        if check.boolean("data.download", download) and not isinstance(source, Downloadable):
            check.fail("data.download", download, f"false for data={name}, which has nothing to download")
        self.download = download
        self.caches_latents = latents is not None and bool(check.one_of("data.latents", latents, ("cache",)))
        self.latents: CachedLatents | None = None
        self.other_content_is_allowed = False  # set when a run is resumed
        self.needs_labels = False  # set for a condition on labels
        self.of_texts: Callable[[Sequence[str]], Mapping[str, Tensor]] | None = None  # set for cond=caption
        self._loader: TrainLoader | None = None
        self._loader_state: dict[str, Any] = {}

    # Properties of the data set.

    @property
    def channels(self) -> int:
        return self.preparation.channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.preparation.size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.preparation.shape

    def require_shape(self, shape: tuple[int, int, int], whose: str) -> None:
        """Raise ValueError unless the images have this shape, (C, H, W). whose: the images that have it."""
        if shape == self.image_shape:
            return
        names = ("data.channels", "data.size", "data.resize")
        settings = (shape[0], f"[{shape[1]},{shape[2]}]", "lanczos")
        differ = (shape[0] != self.channels, *(shape[1:] != self.size,) * 2)
        hint = " ".join(f"{n}={value}" for n, value, other in zip(names, settings, differ, strict=True) if other)
        if self.on_broken == "keep":  # no setting changes these images
            hint = "store all in one size and with the same channels, by one known method"
        theirs, ours = (f"{c} channels and {h} x {w} pixels" for c, h, w in (shape, self.image_shape))
        raise ValueError(f"{whose} have {theirs}, but those of {self.name} have {ours}, so they do not compare: {hint}")

    @property
    def num_train(self) -> int:
        return len(self.training_images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty if the source has none."""
        return self._training.class_names

    @property
    def num_classes(self) -> int | None:
        """As configured, else from the names or labels of the source; None without labels."""
        if self._num_classes is not None:
            return self._num_classes
        return count_classes(self._training.data.labels, self.class_names, self.name)

    def num_trained_on(self, num: int) -> int:
        """How many of `num` usable images are for training."""
        rest = num - self.num_val
        return rest if self._num_train is None else min(rest, self._num_train)

    def require_classes(self) -> tuple[int | None, tuple[str, ...]]:
        """Number and names of the classes, without decoding images, for a condition on labels: then each image needs
        one. Raises ValueError without labels."""
        images = self.open_images(self.source)
        if not (images.labels >= 0).any():
            why = explain_no_labels(images)
            raise ValueError(f"cond=class needs labels, but data={self.name} has none{why}; cond=none trains without")
        self.needs_labels = True
        num = self._num_classes or count_classes(images.labels, images.class_names, self.name)
        return num, tuple(images.class_names)

    def num_listed(self) -> int:
        """Number of training images, without decoding images, which may find that some are broken."""
        return self._num_train or max(1, len(self.source.open()) - self.num_val)

    def listed_captions(self) -> Sequence[str] | None:
        """The captions of all images, without decoding images; None if the source has none."""
        return captions_of(self.source.open())

    def open_images(self, source: Source) -> Images:
        """The images of a source with their labels, not decoded."""
        images = source.open()
        return images if self.labels is None else with_labels(images, self.labels, self.name)

    def content_hash(self, split: str = "train", num_images: int | None = None) -> str:
        """Hash of the images that `eval_loader` yields for the same arguments."""
        opened = self._test if split == "test" and self.test_source is not None else self._training
        return opened.content_hash(self.split(split, num_images).indices)

    def check_images(self, images: Images) -> None:
        """Raise ValueError for other classes than configured, and as of `check_white`."""
        check_classes(images, self._num_classes, self.name)
        sources = (source for source in (self.source, self.test_source) if source is not None)
        check_white(images, self.preparation.white, (source.open() for source in sources))

    def decoder(self, images: Images) -> Decoder:
        """Of these images, and of their label images if there are some."""
        both = images if self.label_images is None else with_label_images(images, self.label_images)
        return Decoder(both, self._stored)

    @cached_property
    def training_images(self) -> ImageData:
        """All but the held-out ones, or num_train of them."""
        data = self.split("train")
        if self._num_train is None:
            return data
        return data.only(choose_subset(len(data), check.integer("data.num_train", self._num_train, 1, len(data))))

    @cached_property
    def _training_content(self) -> str:
        return self.content_hash("train")

    # Lightning's hooks.

    def prepare_data(self) -> None:
        if self.download:
            for source in (self.source, self.test_source):
                if isinstance(source, Downloadable):
                    source.download()

    def setup(self, stage: str | None = None) -> None:
        """Open and verify the data, so that broken files stop a run at its start."""
        if stage in (None, "fit"):
            self._loader, self._loader_state = None, {}
            if self.no_test_split:
                rank_zero_info(f"data={self.name}: no images for testing: {self.no_test_split}")
            self.num_train  # noqa: B018
        if stage != "predict" and self.test_source is not None:
            self._test  # noqa: B018

    def train_dataloader(self) -> TrainLoader:
        state = self._loader.state_dict() if self._loader is not None else self._loader_state
        images = replace(self.training_images, of_texts=self.of_texts)
        images = images if self.latents is None else replace(images, pixels=self.latents)
        how = {"accumulation": self.accumulation, "flip": self.flip, **self._place}
        self._loader = TrainLoader(images, self.batch_size, self.seed, **how)
        if state:
            self._loader.load_state_dict(state)
        return self._loader

    def val_dataloader(self) -> EvalLoader | list:
        """The held-out images, else the test split, else nothing."""
        if self.num_val:
            return self.eval_loader("val")
        if self.test_source is not None:
            return self.eval_loader("test")
        warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")  # this is intended
        return []

    def state_dict(self) -> dict[str, Any]:
        """The position of the training loader. Lightning restores a loader only within an epoch, not between epochs."""
        state = self._loader.state_dict() if self._loader is not None else self._loader_state
        return {"train_loader": state, "content": self._training_content} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """ValueError if the run was trained on other images, unless `other_content_is_allowed`. Captions count if the
        model is conditioned on them. Earlier versions did not find all captions."""
        before = state_dict.get("content")
        one_kind = before and before.startswith("listing-") == self._training_content.startswith("listing-")
        same = {self._training_content}
        if self.of_texts is None:
            same.add(self._training.content_hash(self.split("train").indices, with_captions=False))
        if one_kind and before not in same and not self.other_content_is_allowed:
            raise ValueError(
                f"the checkpoint was trained on other images, labels or captions than data={self.name} has: "
                f"data.content: {before} -> {self._training_content}. "
                "Use the same images, or allow the change: resume.allow=[data.content]"
            )
        self._loader_state = state_dict.get("train_loader", {})
        if self._loader is not None and self._loader_state:
            self._loader.load_state_dict(self._loader_state)

    # Images for evaluation.

    def eval_loader(self, split: str = "train", num_images: int | None = None) -> EvalLoader:
        """The images of a split in order, unflipped, each on exactly one rank.

        num_images: number of images, the same ones in every run; None: all.
        """
        data = self.split(split, num_images)
        world_size = self._place["world_size"]
        if len(data) < world_size:
            raise ValueError(f"{world_size} devices cannot share the {len(data)} images of split={split}")
        return EvalLoader(data, self.eval_batch_size, **self._place)

    def split(self, split: str, num_images: int | None = None) -> ImageData:
        """train: all but the held-out images; val: those; test: the source's own test split."""
        check.one_of("split", split, SPLITS)
        if split == "test":
            if self.test_source is None:
                why = f" ({self.no_test_split})" if self.no_test_split else ""
                check.fail("split", split, f"train or val: data={self.name} has no data.test_source{why}")
            data = self._test.data
        else:
            if split == "val" and not self.num_val:
                check.fail("split", split, "train or test, or data.num_val at least 1")
            everything = self._training.data
            if self.num_val >= len(everything):
                check.fail("data.num_val", self.num_val, f"less than the number of images, {len(everything)}")
            held_out = torch.zeros(len(everything), dtype=torch.bool)
            held_out[choose_subset(len(everything), self.num_val)] = True
            data = everything.only((held_out if split == "val" else ~held_out).nonzero()[:, 0])
        data = replace(data, of_texts=self.of_texts)
        if num_images is None:
            return data
        return data.only(choose_subset(len(data), check.integer("num_images", num_images, low=1, high=len(data))))

    # Devices.

    @property
    def accumulation(self) -> int:
        """Micro-batches per rank in one optimizer step."""
        return 1 if self.trainer is None else self.trainer.accumulate_grad_batches

    @property
    def eval_batch_size(self) -> int:
        """Images per device. Rounded down if the number of devices does not divide the batch size of training."""
        if self._eval_batch_size is not None:
            return self._eval_batch_size
        return max(1, self.batch_size // (self._place["world_size"] * self.accumulation))

    @property
    def _place(self) -> dict[str, Any]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1, "pinned": False}
        pinned = self.pin_memory and self.trainer.strategy.root_device.type == "cuda"
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size, "pinned": pinned}

    # Opening the sources.

    @cached_property
    def _training(self) -> OpenedData:
        return self._opened(self.source, "training")

    @cached_property
    def _test(self) -> OpenedData:
        assert self.test_source is not None
        test = self._opened(self.test_source, "test")
        if test.class_names != self.class_names:
            raise ValueError(
                f"data.test_source numbers its classes differently from data.source: {test.class_names} "
                f"instead of {self.class_names}"
            )
        return test

    def _opened(self, source: Source, purpose: str) -> OpenedData:
        images = self.open_images(source)
        contents = describe(images)
        self.check_images(images)
        images = self.decoder(images).images
        num_images = len(images)
        in_memory = num_images * torch.Size(self._stored.shape).numel() <= self.memory_limit_mb * 2**20
        where = "in memory" if in_memory else "streamed"
        count = self._count(num_images) if purpose == "training" else f"{num_images:,} {purpose} images"
        several = getattr(images, "num_with_several", 0) if self.of_texts is not None else 0
        first = f", the first of several captions for {several:,} of them" if several else ""
        rank_zero_info(f"data={self.name}: {count}, {where}{contents}{first}")
        problems = unlabelled(images) if self.needs_labels else []
        if not in_memory and not self.verify:
            usable(num_images, problems, self.on_broken)
            opened = OpenedData.unseen(images, self._stored, self.num_workers)
        else:
            opened = OpenedData.inspected(images, self._stored, self.num_workers, in_memory, self.on_broken, problems)
        if self.label_images is not None:
            opened.data = replace(opened.data, pixels=LabelledPixels(opened.data.pixels))
        return opened

    def _count(self, num_images: int) -> str:
        """As "1,000 of 4,500 training images, 500 held out"."""
        others = num_images - self.num_val
        used = f"{others:,}" if self._num_train is None else f"{self._num_train:,} of {others:,}"
        return f"{used} training images" + (f", {self.num_val:,} held out" if self.num_val else "")

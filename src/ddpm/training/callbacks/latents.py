"""What latent diffusion needs before its first step: the latents of the data set, if they are kept, and their scale."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.base.atomic import atomic_write
from ddpm.base.progress import ProgressDisplay
from ddpm.base.rng import Rng
from ddpm.base.user_cache import user_cache
from ddpm.checkpoint.stored_config import FITTED
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.latents import SHARD, CachedLatents, is_shard, shard_path
from ddpm.data.order import keyed_order
from ddpm.data.pixels import ImageData, to_floats
from ddpm.model.latent_codec import HASH, LatentCodec
from ddpm.training.module import DiffusionModule

LAYOUT = 1
"""Of the files. Another number gives another key, so that old files are not read."""


class PrepareLatents(Callback):
    """Runs on all processes together, before the weights of a resumed run are loaded."""

    def __init__(self, codec: LatentCodec) -> None:
        self.codec = codec

    def setup(self, trainer: Trainer, module: DiffusionModule, stage: str) -> None:
        if stage != "fit":
            return
        self.codec.network.to(trainer.strategy.root_device)
        work = Encoding(self.codec, trainer, trainer.datamodule, module.model.config[FITTED]["codec"][HASH])
        if trainer.datamodule.caches_latents:
            trainer.datamodule.latents = work.cached()
        if not self.codec.is_fitted:
            found = work.first_batch() if self.codec.chosen_scale == "first_batch" else work.statistics()
            self.codec.fit(found)
            module.model.config[FITTED]["codec"] = {**module.model.config[FITTED]["codec"], **found}


@dataclass(frozen=True)
class Encoding:
    """Passes of the first stage over the training images. sha256: of its weights."""

    codec: LatentCodec
    trainer: Trainer
    data: ImageDataModule
    sha256: str

    @property
    def images(self) -> ImageData:
        return self.data.training_images

    def moments(self, images: Tensor) -> Tensor:
        """images: float32 `[B, C, H, W]`."""
        with self.trainer.precision_plugin.forward_context():
            return self.codec.moments(images.to(self.trainer.strategy.root_device)).float()

    # Kept latents

    def cached(self) -> CachedLatents:
        """Encode what is not in the cache yet; each process makes some of the files."""
        num, folder = len(self.images), user_cache("latents") / self.key()
        shards = self.images.indices.split(SHARD)
        missing = [number for number, rows in enumerate(shards) if not is_shard(shard_path(folder, number), len(rows))]
        missing = self.trainer.strategy.broadcast(missing)  # the same for all processes
        if missing:
            mine = missing[self.trainer.global_rank :: self.trainer.world_size]
            self.encode(folder, {number: shards[number] for number in mine})
            self.trainer.strategy.barrier()
        if not all(is_shard(shard_path(folder, number), len(rows)) for number, rows in enumerate(shards)):
            raise ValueError(f"{folder} is not seen by all processes: DDPM_CACHE=FOLDER must be on a disk they share")
        row = torch.full((len(self.images.labels),), -1)
        row[self.images.indices] = torch.arange(num)
        return CachedLatents(folder, row)

    def key(self) -> str:
        """sha256 of all that decides the latents."""
        rows = hashlib.sha256(self.images.indices.numpy().tobytes()).hexdigest()
        settings = {"flip": self.data.flip, "precision": str(self.trainer.precision)}
        about = [LAYOUT, self.sha256, self.data.content_hash("train"), rows, settings]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]

    def encode(self, folder: Path, shards: dict[int, Tensor]) -> None:
        """Write files. shards: by number, int64 `[n]`, the images of each."""
        num = sum(map(len, shards.values()))
        done, display = 0, ProgressDisplay("image", num) if shards and self.trainer.is_global_zero else None
        with display or nullcontext():
            for number, rows in shards.items():
                encoded = torch.cat([self.both_ways(images) for images in self.batches(rows)]).cpu()
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    if not done:
                        self.demand_space(folder, encoded[0].numel() * encoded.element_size() * num)
                    with atomic_write(shard_path(folder, number)) as partial, open(partial, "wb") as file:
                        np.save(file, encoded.numpy())
                except OSError as error:
                    raise ValueError(
                        f"data.latents=cache cannot write to {folder} ({error.strerror}); DDPM_CACHE=FOLDER chooses "
                        "another place"
                    ) from error
                done += len(rows)
                if display and display.is_due(done):
                    display.show(done, f"encoded once, {display.rate(done):.0f} images/s")

    def both_ways(self, images: Tensor) -> Tensor:
        """float16 `[B, V, M, h, w]`: the moments of images and, if the data are mirrored, of their mirror images."""
        variants = [images, images.flip(-1)] if self.data.flip else [images]
        return torch.stack([self.moments(each) for each in variants], dim=1).clamp(-65504, 65504).half()

    def demand_space(self, folder: Path, needed: int) -> None:
        """needed: bytes that this process writes."""
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"data.latents=cache needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
                "DDPM_CACHE=FOLDER chooses another place"
            )

    def batches(self, indices: Tensor) -> Iterator[Tensor]:
        """Images `[B, C, H, W]` in [-1, 1]."""
        plan = list(indices.split(self.data.eval_batch_size))
        yield from (to_floats(pixels) for pixels in self.images.pixels.reader(persistent=False).read(plan))

    # Scale

    def statistics(self) -> dict[str, float | list[float]]:
        """1 / standard deviation of z over the training images, from the mean and variance of each, in float64: the
        variance of z is Var(mean) + E[variance]. With codec.shift also channel means; no scale that is chosen."""
        sums = torch.zeros(4, self.codec.network.z_channels, dtype=torch.float64)
        mine = self.images.indices[self.trainer.global_rank :: self.trainer.world_size]
        for moments in self.known_moments(mine):
            mean, std = (each.cpu().double().transpose(0, 1).flatten(1) for each in self.codec.distribution(moments))
            num = torch.full_like(sums[0], mean.shape[1])
            sums += torch.stack([num, mean.sum(1), mean.square().sum(1), std.square().sum(1)])
        sums = self.trainer.strategy.reduce(sums.to(self.trainer.strategy.root_device), reduce_op="sum").cpu()
        num, total, squares, variances = sums
        channel_mean = total / num
        centre = channel_mean if self.codec.shifts else total.sum() / num.sum()
        spread = (squares - 2 * centre * total + centre**2 * num + variances).sum() / num.sum()
        found: dict[str, float | list[float]] = {"shift": channel_mean.tolist()} if self.codec.shifts else {}
        return found if self.codec.chosen_scale else {"scale": float(spread**-0.5), **found}

    def known_moments(self, indices: Tensor) -> Iterator[Tensor]:
        if self.data.latents is None:
            return (self.moments(images) for images in self.batches(indices))
        kept, plan = self.data.latents, list(indices.split(self.data.eval_batch_size))
        return (kept.fields(stored)["latent"] for stored in kept.read(plan))

    def first_batch(self) -> dict[str, float]:
        """1 / standard deviation of the z of the first batch of the training, as in the authors' code."""
        order = keyed_order(Rng(self.data.seed, "data"), "order", 0, len(self.images))[: self.data.batch_size]
        indices = self.images.indices[order]
        drawn = []
        for some, moments in zip(indices.split(self.data.eval_batch_size), self.known_moments(indices), strict=True):
            mean, std = (each.cpu().double() for each in self.codec.distribution(moments))
            noise = Rng(self.data.seed, "first_batch").at(0, some).normal("latent", tuple(mean.shape[1:]))
            drawn.append(mean + std * noise)
        return {"scale": 1 / torch.cat(drawn).std().item()}

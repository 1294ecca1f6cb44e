"""Minutes of training to the same FID, beside denoising-diffusion-pytorch and diffusers, on the embedded digits.

    python -m benchmarks.time_to_quality [--only "NAME; NAME"]

Every program trains on the same 5,000 images with one thread, and its clock is the CPU time of its training steps:
starting, sampling and measuring are not counted, and other work on the machine hardly matters. Measures what is
missing, and writes the table and the picture of docs/benchmarks.md.
"""

import argparse
import io
import math
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.equal_minutes import (
    RECIPE,
    ROOT,
    keep_measured,
    read_measured,
    replace_between,
    short_hash,
)
from benchmarks.interleaved import one_thread
from benchmarks.run import table
from ddpm.base.plots import save_figure
from ddpm.config import build
from ddpm.config.compose import compose
from ddpm.evaluation.curves import draw_line, label_points, logarithmic, look
from ddpm.evaluation.evaluators import build_evaluator
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.score import Estimate

PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "time_to_quality.png"
FILE = ROOT / "benchmarks" / "measured" / "time_to_quality.json"
START, END = "<!-- written by python -m benchmarks.time_to_quality -->", "<!-- end of time_to_quality -->"
TARGETS = (3.0, 1.0, 0.5)
END_ROW = "end"
"""The row of a finished training, with its minutes and steps."""
AfterStep = Callable[[], bool]


class Program(Protocol):
    """A training of some program."""

    def train(self, after_step: AfterStep) -> None:
        """Train, and call `after_step` after each step of the optimizer, until it returns True."""
        ...

    def sample(self, num: int) -> Tensor:
        """Images `[num, 1, 28, 28]` in [-1, 1], with the weights of this moment."""
        ...


def embedded_digits() -> Tensor:
    """`[5000, 1, 28, 28]` in [-1, 1]."""
    data = build.data(compose(ROOT / "conf", "train", ["data=mnist"]))
    data.setup("fit")
    return torch.cat([batch["image"] for batch in data.eval_loader("train")])


class ThisProject:
    """`python train.py` with its callbacks and checkpoints, but with logger=csv and without sample grids. Samples as
    evaluate.py does: averaged weights, without guidance."""

    def __init__(self, images: Tensor, experiment: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        words = (f"run_dir={self.folder.name}", "logger=csv", "callbacks.samples=null", "callbacks.denoising=null")
        self.config = compose(ROOT / "conf", "train", [*self.words(experiment), *words])
        self.module = build.module(self.config)

    @staticmethod
    def words(experiment: str) -> list[str]:
        unguided = ["guidance=none", "~guidance.scale", "~guidance.interval"] if experiment == "mnist_class" else []
        return [f"experiment={experiment}", "trainer=cpu", *unguided]

    @classmethod
    def describe(cls, experiment: str) -> Any:
        config = OmegaConf.to_container(compose(ROOT / "conf", "train", cls.words(experiment)))
        return [config[group] for group in (*RECIPE, "sampler", "trainer")]

    def train(self, after_step: AfterStep) -> None:
        class Watch(Callback):
            def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
                trainer.should_stop = after_step()

        build.trainer(self.config, [Watch()]).fit(self.module, build.data(self.config))

    def sample(self, num: int) -> Tensor:
        return self.module.model.sample(num)


@dataclass
class Peer(ABC):
    """What the loops of both programs share.

    size: to which the images are padded; networks that halve them more than twice need 32. Batches come from memory in
    random order, which costs less than the programs' own loaders, and digits are not mirrored. Samples in
    `sampler_steps` steps of DDIM, because the programs' 1,000 steps take hours here.
    """

    package: ClassVar[str]

    images: Tensor = field(repr=False)
    size: int = 32
    batch_size: int = 16
    lr: float = 1e-4
    sampler_steps: int = 20

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.margin = (self.size - self.images.shape[-1]) // 2
        self.images = F.pad(self.images, [self.margin] * 4, value=-1)
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Make the network, the optimizer and the averages."""

    @abstractmethod
    def step(self, batch: Tensor) -> None:
        """A training step on images `[B, 1, size, size]` in [-1, 1]."""

    @abstractmethod
    def draw(self, num: int) -> Tensor:
        """Images `[num, 1, size, size]` in [0, 1] with averaged weights."""

    @classmethod
    def describe(cls, **settings: Any) -> Any:
        chosen = {each.name: settings.get(each.name, each.default) for each in fields(cls) if each.name != "images"}
        return [cls.package, version(cls.package), chosen]

    def batches(self) -> Iterator[Tensor]:
        while True:
            yield from self.images[torch.randperm(len(self.images))].split(self.batch_size)

    def train(self, after_step: AfterStep) -> None:
        for batch in self.batches():
            self.step(batch)
            if after_step():
                return

    def sample(self, num: int) -> Tensor:
        with torch.no_grad():
            drawn = torch.cat([self.draw(len(some)) for some in torch.arange(num).split(50)])
        inner = slice(self.margin, self.size - self.margin)
        return drawn[..., inner, inner].clamp(0, 1) * 2 - 1


@dataclass
class Lucidrains(Peer):
    """The loop of denoising-diffusion-pytorch's Trainer, and the network of its README."""

    package: ClassVar[str] = "denoising-diffusion-pytorch"
    dim: int = 64
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    attn_heads: int = 4
    attn_dim_head: int = 32
    ema_decay: float = 0.995
    ema_every: int = 10

    def build(self) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        network = Unet(
            dim=self.dim,
            dim_mults=self.dim_mults,
            channels=1,
            attn_heads=self.attn_heads,
            attn_dim_head=self.attn_dim_head,
            flash_attn=True,
        )
        self.process = GaussianDiffusion(network, image_size=self.size, sampling_timesteps=self.sampler_steps)
        self.average = EMA(self.process, beta=self.ema_decay, update_every=self.ema_every)
        self.optimizer = torch.optim.Adam(self.process.parameters(), lr=self.lr, betas=(0.9, 0.99))

    def step(self, batch: Tensor) -> None:
        self.process((batch + 1) / 2).backward()
        torch.nn.utils.clip_grad_norm_(self.process.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()

    def draw(self, num: int) -> Tensor:
        with redirect_stderr(io.StringIO()):  # its progress bar
            return self.average.ema_model.eval().sample(num)


@dataclass
class Diffusers(Peer):
    """The loop and the network of diffusers' example of unconditional training, with --use_ema.

    total_steps: of the cosine schedule of the learning rate, 100 epochs by default; 0: constant after the warm-up.
    """

    package: ClassVar[str] = "diffusers"
    channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    attention_level: int = 4
    layers: int = 2
    groups: int = 32
    warmup_steps: int = 500
    total_steps: int = 31_300
    ema_decay: float = 0.9999

    def build(self) -> None:
        from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        down = ["AttnDownBlock2D" if n == self.attention_level else "DownBlock2D" for n in range(len(self.channels))]
        self.network = UNet2DModel(
            sample_size=self.size,
            in_channels=1,
            out_channels=1,
            layers_per_block=self.layers,
            norm_num_groups=self.groups,
            block_out_channels=self.channels,
            down_block_types=down,
            up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        )
        self.noise = DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        kind = "cosine" if self.total_steps else "constant_with_warmup"
        self.schedule = get_scheduler(
            kind, self.optimizer, num_warmup_steps=self.warmup_steps, num_training_steps=self.total_steps
        )
        self.average = EMAModel(
            self.network.parameters(), decay=self.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4
        )
        solver = DDIMScheduler.from_config(self.noise.config, timestep_spacing="trailing")
        self.pipeline = DDIMPipeline(self.network, solver)
        self.pipeline.set_progress_bar_config(disable=True)

    def step(self, batch: Tensor) -> None:
        noise, t = torch.randn_like(batch), torch.randint(0, 1000, (len(batch),))
        output = self.network(self.noise.add_noise(batch, noise, t), t).sample
        F.mse_loss(output, noise).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.step(self.network.parameters())

    def draw(self, num: int) -> Tensor:
        parameters = list(self.network.parameters())
        self.average.store(parameters)
        self.average.copy_to(parameters)
        pixels = self.pipeline(batch_size=num, num_inference_steps=self.sampler_steps, output_type="np").images
        self.average.restore(parameters)
        self.network.train()
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class Entry(NamedTuple):
    """minutes: when it is measured; the last is its limit. num_samples: of each measurement."""

    make: Callable[..., Program]
    settings: Mapping[str, Any]
    minutes: tuple[float, ...]
    num_samples: int = 500


OURS = (0.2, 0.28, 0.4, 0.56, 0.8, 1.1, 1.6, 60)
SMALL = {"size": 28, "batch_size": 32, "lr": 1e-3, "ema_decay": 0.995}
ENTRIES = {
    "this project": Entry(ThisProject, {"experiment": "mnist_uncond"}, OURS),
    "this project, with classes": Entry(ThisProject, {"experiment": "mnist_class"}, OURS),
    "denoising-diffusion-pytorch, tuned": Entry(
        Lucidrains,
        dict(SMALL, dim=24, dim_mults=(1, 2, 4), attn_heads=2, attn_dim_head=16, ema_every=1),
        (1.5, 3, 5, 8),
    ),
    "diffusers, tuned": Entry(
        Diffusers,
        dict(SMALL, channels=(32, 64, 64), attention_level=2, layers=1, groups=8, warmup_steps=100, total_steps=0),
        (1, 1.4, 2, 2.8, 4, 5.6, 8),
    ),
    "denoising-diffusion-pytorch, defaults": Entry(Lucidrains, {}, (8,), 100),
    "diffusers, defaults": Entry(Diffusers, {}, (8,), 100),
}
"""This project's training ends before its limit, with a last measurement."""


def measure(program: Program, minutes: tuple[float, ...], keep: Callable[[float, int], object]) -> None:
    """Train and call keep(minutes of training, steps) after the step that reaches each of `minutes`, and at the end of
    a training that ends before."""
    due, seconds, steps, last, start = list(minutes), 0.0, 0, 0, math.nan

    def after_step() -> bool:
        nonlocal seconds, steps, last, start
        if steps:  # the clock starts after the first step, which also fills caches
            seconds += time.process_time() - start
        steps += 1
        if seconds >= 60 * due[0]:
            while due and seconds >= 60 * due[0]:
                due.pop(0)
            keep(seconds / 60, steps)
            last = steps
        start = time.process_time()
        return not due

    program.train(after_step)
    if last < steps:
        keep(seconds / 60, steps)


def fid(images: Tensor, evaluator: Evaluator) -> Estimate:
    evaluator.reset_fake()
    evaluator.update_fake(images, torch.arange(len(images)))
    (value,) = evaluator.compute().values()
    return value


def digit_evaluator(images: Tensor) -> Evaluator:
    """FID with features=mnist, against all training images."""
    config = compose(ROOT / "conf", "evaluate", ["features=mnist", "metric=fid"])
    evaluator = build_evaluator(config, "mnist").to("cpu")
    evaluator.update_real(images, torch.arange(len(images)))
    return evaluator


def key(name: str) -> str:
    entry = ENTRIES[name]
    return f"{name}|{short_hash([entry.make.describe(**entry.settings), *entry[2:]])}"


def measure_entry(name: str, images: Tensor, evaluator: Evaluator) -> None:
    entry = ENTRIES[name]
    program, reached = entry.make(images, **entry.settings), {}

    def keep(minutes: float, steps: int) -> None:
        value = fid(program.sample(entry.num_samples), evaluator)
        print(f"{name}: {minutes:.2f} minutes, {steps} steps, FID {value.value:.3f} ± {value.error:.3f}", flush=True)
        reached.update(minutes=minutes, steps=steps)
        keep_measured(FILE, key(name), f"{steps:06d}", {**reached, "fid": value.value, "error": value.error})

    measure(program, entry.minutes, keep)
    keep_measured(FILE, key(name), END_ROW, reached)


class Point(NamedTuple):
    minutes: float
    steps: int
    fid: Estimate


def curve(measured: Mapping[str, Mapping[str, float]]) -> list[Point]:
    rows = sorted((row for row in measured.values() if "fid" in row), key=lambda row: row["steps"])
    return [Point(row["minutes"], int(row["steps"]), Estimate(row["fid"], row["error"])) for row in rows]


def minutes_to(points: list[Point], target: float) -> str:
    """When FID first reaches the target, on the line between two measurements in the logarithms of both; with "<" or
    ">" if this is before the first or after the last measurement."""
    below = next((n for n, point in enumerate(points) if point.fid.value <= target), None)
    if not below:
        return f"> {points[-1].minutes:.1f}" if below is None else f"< {points[0].minutes:.2f}"
    before, after = points[below - 1 : below + 1]
    share = math.log(before.fid.value / target) / math.log(before.fid.value / after.fid.value)
    return f"{before.minutes * (after.minutes / before.minutes) ** share:.2f}"


def row(name: str, points: list[Point]) -> dict[str, str]:
    last = points[-1]
    return {
        "program": name,
        "minutes trained": f"{last.minutes:.1f}",
        "steps": f"{last.steps:,}",
        "FID": f"{last.fid.value:.3g} ± {last.fid.error:.2g}",
        **{f"minutes to {target:g}": minutes_to(points, target) for target in TARGETS},
    }


def draw(curves: Mapping[str, list[Point]]) -> Figure:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    for number, points in enumerate(curves.values()):
        draw_line(axes, [point.minutes for point in points], [point.fid for point in points], **look(number))
    axes.set(xlabel="minutes of training on one core (CPU time)", ylabel="FID (features of digits), lower is better")
    axes.margins(0.15)
    label_points(axes, [(points[-1].minutes, points[-1].fid.value) for points in curves.values()], list(curves))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, separated by semicolons, of " + "; ".join(ENTRIES))
    given = parser.parse_args()
    with one_thread():
        measured, images = read_measured(FILE), embedded_digits()
        evaluator = digit_evaluator(images)
        only = [name.strip() for name in given.only.split(";") if name] or list(ENTRIES)
        for name in only:
            if END_ROW not in measured.get(key(name), {}):
                measure_entry(name, images, evaluator)
    measured = read_measured(FILE)
    curves = {name: curve(measured[key(name)]) for name in ENTRIES if key(name) in measured}
    found = table([row(name, points) for name, points in curves.items()])
    replace_between(PAGE, START, END, found)
    save_figure(draw(curves), PICTURE)
    print(found)


if __name__ == "__main__":
    main()

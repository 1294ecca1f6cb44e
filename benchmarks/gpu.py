"""This project on one GPU, beside diffusers: python -m benchmarks.gpu [--rounds 10] [--only training,loop]

Training step and network call of the 35.7 M U-Net of Ho et al. 2020 for CIFAR-10, sampling loops, the complete loop of
train.py, a training that is killed and resumed, and a training with sampling and FID. Writes the tables with the name
of the device to docs/gpu.md. Nothing is downloaded.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmarks.interleaved import Timing, measure
from benchmarks.run import table
from ddpm.base.types import Batch
from ddpm.config import build
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.runs.console import quiet_libraries

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpu.md"
START = "<!-- written by python -m benchmarks.gpu: what stands below is replaced -->"
BATCH, CALLS = 128, 5
DIGITS = ("data=digits", "data.channels=3", "data.size=32", "data.resize=bilinear")  # 32 x 32 x 3, without a download
CIFAR = ("experiment=ddpm_cifar10", *DIGITS, f"data.batch_size={BATCH}")
QUIET = ("logger=csv", "~callbacks.samples", "~callbacks.denoising")
Rows = list[dict[str, Any]]


def configuration(*words: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(words))


def several(run: Callable[[], object]) -> Callable[[], None]:
    """So many calls, and the wait for the GPU."""

    def calls() -> None:
        for _ in range(CALLS):
            run()
        torch.cuda.synchronize()

    return calls


def timings(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    return measure({name: several(run) for name, run in contenders.items()}, rounds, warmup=3)


def rates(found: dict[str, Timing], images: int, what: str) -> Rows:
    return [
        {what: name, "ms": f"{1000 * each.seconds / CALLS:.2f}", "img/s": f"{images * CALLS / each.seconds:,.0f}"}
        | {"speed against the first": f"{each.speed:.2f}"}
        for name, each in found.items()
    ]


def autocast(dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None)


# A training step


def our_step(dtype: torch.dtype | None, *words: str) -> Callable[[], None]:
    """Loss, gradients, clipping, optimizer and averages, as DiffusionModule does them under a Trainer."""
    module = build.module(configuration(*CIFAR, *words)).train().cuda()
    optimizer, schedule = module.own_turn.make_optimizer(module.network.parameters())
    ids = torch.arange(BATCH, device="cuda")
    images = torch.rand(BATCH, 3, 32, 32, device="cuda") * 2 - 1
    batch, step = Batch(image=images, label=ids, index=ids, position=ids), 0
    if "channels_last=true" in words:
        batch["image"] = images.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        nonlocal step
        step += 1
        with autocast(dtype):
            draws = module.train_rng.at(step, batch["index"], batch["position"])
            denoiser = NetworkDenoiser(module.network, module.model.objective)
            loss = module.loss(denoiser, batch["image"], {}, draws).total.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        module.averages.update(module.network)

    return run


def diffusers_network() -> torch.nn.Module:
    """UNet2DModel with the settings of google/ddpm-cifar10-32 and the paper's dropout."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32, block_out_channels=(128, 256, 256, 256), layers_per_block=2, dropout=0.1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, norm_eps=1e-6,
    ).cuda()  # fmt: skip


def diffusers_step(dtype: torch.dtype | None, compiled: bool = False) -> Callable[[], None]:
    """As in its example of unconditional training."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    network = diffusers_network().train()
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    average = EMAModel(network.parameters(), decay=0.9999)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4)
    images = torch.rand(BATCH, 3, 32, 32, device="cuda") * 2 - 1
    called = torch.compile(network) if compiled else network

    def run() -> None:
        noise, t = torch.randn_like(images), torch.randint(0, 1000, (BATCH,), device="cuda")
        with autocast(dtype):
            output = called(scheduler.add_noise(images, noise, t), t).sample
        torch.nn.functional.mse_loss(output.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())

    return run


def fastest_convolutions(run: Callable[[], None]) -> Callable[[], None]:
    """With cuDNN's trials of all its algorithms for each new shape (`+trainer.benchmark=true`)."""

    def tried() -> None:
        torch.backends.cudnn.benchmark = True
        run()
        torch.backends.cudnn.benchmark = False

    return tried


def training(rounds: int) -> Rows:
    """Forward, loss, backward, optimizer and averaged weights; batch size 128."""
    half = torch.bfloat16
    contenders = {
        "diffusers, fp32 (TF32)": diffusers_step(None),
        "diffusers, fp32 (TF32), again": diffusers_step(None),
        "this project, fp32 (TF32)": our_step(None),
        "diffusers, bf16": diffusers_step(half),
        "this project, bf16": our_step(half),
        "this project, bf16, channels_last": our_step(half, "channels_last=true"),
        "this project, bf16, trainer.benchmark": fastest_convolutions(our_step(half)),
        "this project, bf16, channels_last, trainer.benchmark": fastest_convolutions(
            our_step(half, "channels_last=true")
        ),
    }
    return rates(timings(contenders, rounds), BATCH, "training step")


def compiled(rounds: int) -> Rows:
    """The same with torch.compile, in bf16, after the minutes of compiling."""
    half = torch.bfloat16
    contenders = {
        "this project, bf16": our_step(half),
        "this project, bf16, compiled": our_step(half, "compile=true"),
        "diffusers, bf16, compiled": diffusers_step(half, compiled=True),
    }
    return rates(timings(contenders, rounds), BATCH, "training step")


# Sampling


def ddim(dtype: torch.dtype | None, *words: str) -> Callable[[], None]:
    model = build.module(configuration(*CIFAR, "sampler=ddim", f"sampler.steps={CALLS}", *words)).model.cuda()
    ids = torch.arange(2 * BATCH, device="cuda")

    def run() -> None:
        with model.inference(autocast(dtype)):
            model.generate(ids, "raw")
        torch.cuda.synchronize()

    return run


def diffusers_ddim(dtype: torch.dtype | None) -> Callable[[], None]:
    from diffusers import DDIMScheduler

    network = diffusers_network().eval()
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(CALLS)

    def run() -> None:
        x = torch.randn(2 * BATCH, 3, 32, 32, device="cuda")
        with torch.no_grad(), autocast(dtype):
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
        torch.cuda.synchronize()

    return run


def sampling(rounds: int) -> Rows:
    """A step of DDIM with its network call, in a loop of 5; batch size 256. Each program draws its own noise."""
    half = torch.bfloat16
    contenders = {
        "diffusers, fp32 (TF32)": diffusers_ddim(None),
        "this project, fp32 (TF32)": ddim(None),
        "diffusers, bf16": diffusers_ddim(half),
        "this project, bf16": ddim(half),
        "this project, bf16, channels_last": ddim(half, "channels_last=true"),
    }
    found = measure(contenders, rounds, warmup=3)
    return rates(found, 2 * BATCH, "sampling step")


# Commands


def command(*words: str) -> tuple[str, float]:
    """What it prints, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout, time.perf_counter() - start


def loop(rounds: int) -> Rows:
    """train.py with data, noise, seeded dropout, checks, logs and averages, per step after 100 steps."""
    rows = []
    for name, words in {
        "35.7 M U-Net, bf16, batch size 128": CIFAR,
        "experiment=mnist, bf16, batch size 32": ("experiment=mnist",),
        "experiment=mnist, fp32, batch size 32": ("experiment=mnist", "trainer.precision=32-true"),
        "experiment=ddgan_mnist, fp32, batch size 32": ("experiment=ddgan_mnist", "trainer.precision=32-true"),
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            steps = ("trainer.max_steps=300", "checkpoint_every_n_steps=300", "trainer.log_every_n_steps=50")
            command("train.py", *words, *QUIET, *steps, f"run_dir={folder}/run")
            with open(f"{folder}/run/metrics.csv", newline="") as file:
                found = [row for row in csv.DictReader(file) if row.get("sys/steps_per_second")][2:]
        rate, images = (
            statistics.median(float(row[f"sys/{what}_per_second"]) for row in found) for what in ("steps", "images")
        )
        rows.append({"training": name, "ms a step": f"{1000 / rate:.2f}", "img/s": f"{images:,.0f}"})
    return rows


def resuming(rounds: int) -> Rows:
    """`ddpm verify-resume`: a run that is killed (SIGKILL) and resumed, bit by bit against one without interruption."""
    rows = []
    for words in (("experiment=mnist",), ("experiment=ddgan_mnist",)):
        words = (*words, "trainer.deterministic=true")
        try:
            said = command("-m", "ddpm", "verify-resume", *words)[0].splitlines()[-1]
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
        rows.append({"settings": f"`{' '.join(words)}`", "result": said})
    return rows


def first_model(rounds: int) -> Rows:
    """The default training with its sample grids and FID (`train.py metric=fid`), then 10,000 samples and their FID."""
    with tempfile.TemporaryDirectory() as folder:
        trained = command("train.py", "logger=csv", "metric=fid", f"run_dir={folder}/run")[1]
        said, measured = command("evaluate.py", f"ckpt={folder}/run", "metric=fid", "num_samples=10000")
    value = next(line for line in said.splitlines() if "fid" in line.lower())
    return [
        {"command": "`python train.py metric=fid`", "seconds": f"{trained:.0f}", "result": "1,400 steps"},
        {"command": "`python evaluate.py ckpt=... metric=fid num_samples=10000`", "seconds": f"{measured:.0f}"}
        | {"result": value.strip()},
    ]


PARTS: dict[str, tuple[str, Callable[[int], Rows]]] = {
    "training": ("Training step, 35.7 M U-Net", training),
    "compiled": ("Training step, compiled", compiled),
    "sampling": ("Sampling step, 35.7 M U-Net", sampling),
    "loop": ("The complete loop", loop),
    "resuming": ("Killed and resumed", resuming),
    "first_model": ("The first model", first_model),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    about = f"Medians of {given.rounds} interleaved rounds on one {torch.cuda.get_device_name()}; {packages}."
    head = given.page.read_text().partition(START)[0] if given.page.exists() else "# On a GPU\n\n"
    page = [head + START, about]
    for name in given.only.split(","):
        title, rows = PARTS[name]
        page.append(f"## {title}\n\n{rows.__doc__}\n\n{table(rows(given.rounds))}")
        print(page[-1], flush=True)
        given.page.write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()

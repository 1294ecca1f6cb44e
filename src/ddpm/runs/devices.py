"""Devices and precision, checked before Lightning starts processes, which would wait for missing devices."""

import os
import statistics
import timeit

import torch

from ddpm.base import check
from ddpm.runs import launch

ACCELERATORS = ("auto", "gpu", "cuda", "cpu")
SLOW = "bf16-mixed-slow"
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", SLOW)


def accelerator(name: str) -> str:
    """`gpu` or `cpu`. Apple's MPS is not supported: it has no float64, which schedules need."""
    if name == "mps":
        raise ValueError("trainer.accelerator=mps has no float64, which the noise schedules need; use trainer=cpu")
    check.one_of("trainer.accelerator", name, ACCELERATORS)
    if name == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "gpu"
    if name == "auto":
        return "cpu"
    raise ValueError(f"trainer.accelerator={name}, but torch finds no NVIDIA GPU on this machine; use trainer=cpu")


def precision(name: str, accelerator: str) -> str:
    """`auto` is bf16-mixed on GPUs that support it, else 32-true; bf16-mixed-slow is bf16-mixed on any CPU.

    16-mixed, with a scaled loss, is for GPUs without bfloat16.
    """
    check.one_of("trainer.precision", name, PRECISIONS)
    if name == "16-mixed" and accelerator == "cpu":
        raise ValueError("trainer.precision=16-mixed is for GPUs; on a CPU use trainer.precision=32-true")
    if name == "bf16-mixed" and accelerator == "cpu" and not launch.by_lightning():
        refuse_slow_bf16()
    if name != "auto":
        return name.removesuffix("-slow")
    return "bf16-mixed" if accelerator == "gpu" and torch.cuda.is_bf16_supported() else "32-true"


def refuse_slow_bf16() -> None:
    """Raise ValueError if bfloat16 is slow on this CPU. It is measured, because no CPU flag shows it reliably."""
    exact, rough = (1e3 * convolution_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
    if rough > exact:
        raise ValueError(
            f"trainer.precision=bf16-mixed is slow on this CPU: a convolution takes {rough:.2f} ms in bfloat16 and "
            f"{exact:.2f} ms in float32; use trainer.precision=32-true, or force it with trainer.precision={SLOW}"
        )


def convolution_seconds(dtype: torch.dtype) -> float:
    """Median time of small convolutions on one thread; with two threads, it would vary on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, weight = torch.ones(1, 64, 32, 32, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    seconds = timeit.repeat(lambda: torch.conv2d(x, weight, padding=1), number=1, repeat=9)
    torch.set_num_threads(threads)
    return statistics.median(seconds[2:])  # the first two are warm-up


def check_number(accelerator: str, devices: int | str | list[int]) -> None:
    """Raise ValueError if more devices are requested than this machine has."""
    num = torch.cuda.device_count() if accelerator == "gpu" else os.cpu_count() or 1
    if isinstance(devices, list):
        requested = max(devices, default=-1) + 1 if accelerator == "gpu" else len(devices)
    elif devices in ("auto", -1, "-1"):
        requested = num
    else:
        requested = check.positive_int("trainer.devices", devices)
    if requested > num:
        kind = "NVIDIA GPU" if accelerator == "gpu" else "CPU core"
        without = "" if accelerator == "gpu" or torch.cuda.is_available() else "no NVIDIA GPU and "
        raise ValueError(
            f"trainer.devices={devices}, but this machine has {without}{num} {kind}{'s' * (num != 1)}; "
            f"set trainer.devices={num} or less"
        )

"""What this machine computes on, checked before Lightning starts processes: it would wait for ones that cannot come."""

import os

import torch

from ddpm import check

ACCELERATORS = ("auto", "gpu", "cuda", "cpu")
PRECISIONS = ("auto", "32-true", "bf16-mixed")


def accelerator(name: str) -> str:
    """`gpu` or `cpu`. Apple's MPS is left out: it has no float64, which the schedules' tables need."""
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
    """`auto` is bf16 mixed precision on a GPU that has it, else float32."""
    check.one_of("trainer.precision", name, PRECISIONS)
    if name != "auto":
        return name
    return "bf16-mixed" if accelerator == "gpu" and torch.cuda.is_bf16_supported() else "32-true"


def check_number(accelerator: str, devices: int | str | list[int]) -> None:
    """ValueError, with what to type, if more devices of one machine are asked for than it has."""
    num = torch.cuda.device_count() if accelerator == "gpu" else os.cpu_count() or 1
    if isinstance(devices, list):
        asked = max(devices, default=-1) + 1 if accelerator == "gpu" else len(devices)
    elif devices in ("auto", -1, "-1"):
        asked = num
    else:
        asked = check.positive_int("trainer.devices", devices)
    if asked > num:
        kind = "NVIDIA GPU" if accelerator == "gpu" else "CPU core"
        without = "" if accelerator == "gpu" or torch.cuda.is_available() else "no NVIDIA GPU and "
        raise ValueError(
            f"trainer.devices={devices}, but this machine has {without}{num} {kind}{'s' * (num != 1)}; "
            f"type trainer.devices={num} or less"
        )

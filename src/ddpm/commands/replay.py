"""Replay a training step and print its first non-finite values: python -m ddpm replay RUN/nonfinite/STEP.pt"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from ddpm.base.types import Batch
from ddpm.checkpoint.reading import read_data
from ddpm.checkpoint.trust import take_trust
from ddpm.commands.cli import USER_ERRORS, exit_with_error
from ddpm.config import build
from ddpm.runs import devices
from ddpm.runs.interruption import heed_signals
from ddpm.runs.portable import open_config
from ddpm.training.callbacks.finite_loss import IN_BATCH
from ddpm.training.module import DiffusionModule
from ddpm.training.turn import NETWORK, Turn


def replay(path: Path, slow_bf16: bool = False) -> list[str]:
    """Names of the non-finite values in order of computation; empty if all values are finite on this machine."""
    stored = read_data(path, "replay") if path.is_file() else {}
    if "index" not in stored:
        told = f"RUN/nonfinite/STEP.pt, which a training writes if its loss is not finite, got {str(path)!r}"
        raise ValueError(f"ddpm replay takes {told}")
    module = build.module(*open_config({**stored["config"], "compile": False}))
    for turn in module.turns:
        turn.network.load_state_dict(stored[turn.name])
    module.to("cuda" if torch.cuda.is_available() else "cpu").train()
    if not slow_bf16 and stored["config"]["trainer"]["precision"] != devices.SLOW:
        devices.precision(stored["precision"], module.device.type)
    ranks, micro_batches = stored["index"].shape[:2]
    found: list[str] = []
    for turn in module.turns:
        module.zero_grad()
        for rank in range(ranks):
            for number in range(micro_batches):
                found += replay_batch(module, turn, stored, rank, number)
        bad = [name for name, p in turn.network.named_parameters() if p.grad is not None and not is_finite(p.grad)]
        found += [f"the gradient of {named(turn, name)}" for name in bad]
    return found


def named(turn: Turn, part: str) -> str:
    """A part of a network, with the network's name where it is not the model's own."""
    return part if turn.name == NETWORK else f"{turn.name}.{part}"


def replay_batch(module: DiffusionModule, turn: Turn, stored: dict[str, Any], rank: int, number: int) -> list[str]:
    names = [name for name in (*IN_BATCH, "pixels") if name in stored]
    values = {name: stored[name][rank, number].to(module.device) for name in names}
    if "pixels" in values:
        values["image"] = values.pop("pixels").float().div_(127.5).sub_(1)
    batch = Batch(**values)
    batch_idx = stored["batch_idx"] + 1 - stored["index"].shape[1] + number
    found: list[str] = []
    watched = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note_nonfinite(found, name, output))
        for each in module.turns
        for name, layer in ((named(each, name), layer) for name, layer in each.network.named_modules())
        if not list(layer.children())
    ]
    module.seed_dropout(stored["epoch"], batch_idx, rank, turn.name if len(module.turns) > 1 else "")
    with context(stored["precision"], module.device.type):
        terms = module.loss_terms(turn, batch, stored["epoch"], stored["step"] - 1)
        terms.weighted(terms.sum).mean().backward()
    for hook in watched:
        hook.remove()
    for index, t, total in zip(batch["index"].tolist(), terms.t.tolist(), terms.sum.tolist(), strict=True):
        if not torch.isfinite(torch.tensor(total)):
            loss = "loss" if turn.name == NETWORK else f"{turn.name}'s loss"
            found.append(f"the {loss} of image {index} at t = {t}, which is {total} (rank {rank}, batch {batch_idx})")
    return found


def context(precision: str, device: str) -> Any:
    if precision in ("bf16-mixed", "16-mixed"):
        return MixedPrecision(precision, device).forward_context()
    return torch.enable_grad()


def note_nonfinite(found: list[str], name: str, output: Tensor) -> None:
    if not found and isinstance(output, Tensor) and not is_finite(output):
        found.append(f"the output of {name}")


def is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


@heed_signals()
def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return
    path, *rest = take_trust(sys.argv[1:]) or [""]
    if not path or rest not in ([], [f"trainer.precision={devices.SLOW}"]):
        exit_with_error(
            f"python -m ddpm replay takes RUN/nonfinite/STEP.pt, and optionally trainer.precision={devices.SLOW}"
        )
    try:
        found = replay(Path(path), slow_bf16=bool(rest))
    except USER_ERRORS as error:
        exit_with_error(str(error), error)
    if not found:
        print("all values are finite here: the step failed on another device or with other versions")
        sys.exit(1)
    print("not finite, in order of computation:")
    for what in found[:20]:
        print(f"  {what}")
    if len(found) > 20:
        print(f"  and {len(found) - 20} more")


if __name__ == "__main__":
    main()

"""Stops a run with a NaN or infinite loss or gradient, and writes a file that can replay the step."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.base.images import to_uint8
from ddpm.base.types import Batch
from ddpm.training import sharding
from ddpm.training.callbacks.checkpoints import last_good
from ddpm.training.logs import ends_step, is_log_step
from ddpm.training.module import DiffusionModule, StepOutput

IN_BATCH = ("label", "index", "position", "latent", "caption", "tokens", "label_map")
"""Parts of a batch that are stored as they are; images are stored as uint8 pixels."""


class FiniteLoss(Callback):
    """Records the first bad step on the device, and reads it only when numbers are logged or a checkpoint is saved.

    Until then the optimizers skip their steps (see `DiffusionModule.clip_gradients_of`). So RUN/nonfinite/STEP.pt
    contains the weights before the bad turn, and the step's batches of all ranks: uint8 pixels, or moments of latents
    that were encoded once.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []  # since the last optimizer step
        self.outputs: list[dict[str, dict[str, Tensor]]] = []  # of their turns, in the same order
        self.noted: dict[str, Tensor] | None = None  # the first bad step, else the last step

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, batch: Batch, batch_idx: int
    ) -> None:
        self.batches.append(batch)
        self.outputs.append(outputs["turns"])
        if not ends_step(trainer, batch_idx):
            return
        step = {name: torch.stack([each[name] for each in self.batches]) for name in batch}
        for name in ("total", "t"):  # `[turns, images]`
            of_turns = ([each[turn.name][name] for each in self.outputs if each] for turn in module.turns)
            step[name] = torch.stack([torch.cat(values) for values in of_turns])
        none = step["total"].new_zeros(())
        step["norm"] = torch.stack([module.grad_norms.get(turn.name, none) for turn in module.turns])
        self.batches, self.outputs = [], []
        place = (trainer.global_step, trainer.current_epoch, batch_idx)
        step["place"] = torch.stack([torch.full_like(step["t"][0, 0], number) for number in place])
        step["bad"] = ~torch.isfinite(step["total"]).all() | module.skip_steps.bool()
        if self.noted is not None:
            step = {name: torch.where(self.noted["bad"], self.noted[name], now) for name, now in step.items()}
        self.noted = step
        if is_log_step(trainer, batch_idx):
            self.stop_if_bad(trainer, module)

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        self.stop_if_bad(trainer, module)

    def stop_if_bad(self, trainer: Trainer, module: DiffusionModule) -> None:
        if self.noted is None or not trainer.strategy.all_gather(self.noted["bad"]).any():
            return
        step = {k: trainer.strategy.all_gather(v).reshape(trainer.world_size, *v.shape) for k, v in self.noted.items()}
        first = step["place"][:, 0] == step["place"][step["bad"], 0].min()  # the ranks on which it came first
        number, epoch, batch_idx = step["place"][first][0].tolist()
        bad = first[:, None, None] & ~torch.isfinite(step["total"])
        times = step["t"][bad if bad.any() else first]
        is_bad = bad.any(dim=(0, 2)) if bad.any() else (~torch.isfinite(step["norm"][first])).any(0)
        names = [turn.name for turn, wrong in zip(module.turns, is_bad.tolist(), strict=True) if wrong]
        of_turn = f" of the turn of the {names[0]}" if names and len(module.turns) > 1 else ""
        what = f"{'loss' if bad.any() else 'gradient'}{of_turn}"
        path = Path(trainer.default_root_dir) / "nonfinite" / f"{number:08d}.pt"
        weights = {turn.name: sharding.full_weights(turn.network) for turn in module.turns}
        hint = ""
        if trainer.is_global_zero:
            batches = {name: step[name].cpu() for name in IN_BATCH if name in step}
            if "image" in step:
                batches["pixels"] = to_uint8(step["image"]).cpu()
            place = {"step": number, "epoch": epoch, "batch_idx": batch_idx, "precision": str(trainer.precision)}
            hint = f"To see where it began: python -m ddpm replay {path}. "
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save({"config": module.model.config, **weights, **place, **batches}, path)
            except (OSError, RuntimeError) as error:
                hint = f"{path}, to replay the step, could not be written: {error}. "
        raise FloatingPointError(
            f"the {what} became NaN or infinite at step {number}, for times t in {times.min()}..{times.max()}. "
            f"Last good checkpoint: {last_good(trainer) or 'none was written yet'}. {hint}"
            "Lower optimizer.lr, lengthen optimizer.warmup_steps, or set trainer.precision=32-true"
        )

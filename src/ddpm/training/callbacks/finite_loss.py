"""Stops a run whose loss is no longer a number, naming the step, the time and the last good checkpoint."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.training.logs import is_log_step
from ddpm.training.module import DiffusionModule
from ddpm.types import Batch


class FiniteLoss(Callback):
    """The first bad step and its times are noted on the device and read only when numbers are logged or saved."""

    def __init__(self) -> None:
        self.first_bad: Tensor | None = None  # int64 [3]: step, lowest and highest bad time

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        bad, t = ~torch.isfinite(outputs["total"]), outputs["t"]
        if self.first_bad is None:
            self.first_bad = torch.full((3,), -1, dtype=torch.int64, device=t.device)
        T = module.sampler.process.T
        here = torch.stack(
            [
                torch.full_like(t[0], trainer.global_step),
                torch.where(bad, t, T).min(),
                torch.where(bad, t, 0).max(),
            ]
        )
        self.first_bad = torch.where((self.first_bad[0] < 0) & bad.any(), here, self.first_bad)
        if is_log_step(trainer, batch_idx):
            self.stop_if_bad(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict) -> None:
        self.stop_if_bad(trainer)

    def stop_if_bad(self, trainer: Trainer) -> None:
        if self.first_bad is None:
            return
        everyone = trainer.strategy.all_gather(self.first_bad).reshape(-1, 3).tolist()
        bad = [found for found in everyone if found[0] >= 0]
        if not bad:
            return
        step = min(found[0] for found in bad)
        low = min(found[1] for found in bad if found[0] == step)
        high = max(found[2] for found in bad if found[0] == step)
        paths = [callback.last_model_path for callback in trainer.checkpoint_callbacks if callback.last_model_path]
        last_good = Path(paths[0]).resolve() if paths else "none was written yet"
        raise FloatingPointError(
            f"the loss became NaN or infinite at step {step}, for times t in {low}..{high}. "
            f"Last good checkpoint: {last_good}. "
            "Lower optimizer.lr, lengthen optimizer.warmup_steps, or set trainer.precision=32-true"
        )

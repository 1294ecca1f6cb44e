"""Warns once if the adversary separates real and fake samples so well that the network no longer learns from it."""

import math

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.training.logs import is_log_step
from ddpm.training.module import DiffusionModule, StepOutput
from ddpm.training.turn import ADVERSARY

REMEDY = "try a larger loss.r1_gamma if the loss has one, a smaller adversary_optimizer.lr, or a smaller adversary"


class AdversaryCollapse(Callback):
    """Checks the adversary's turn whenever numbers are logged; does nothing in a training without one.

    It warns if the mean |logit| is above `largest_logit` or the mean loss is below `smallest_loss` at `patience` logs
    in a row.
    """

    def __init__(self, largest_logit: float, smallest_loss: float, patience: int) -> None:
        self.largest_logit = check.positive_number("largest_logit", largest_logit)
        self.smallest_loss = check.number("smallest_loss", smallest_loss, low=0)
        self.patience = check.positive_int("patience", patience)
        self.in_a_row = 0

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, batch: Batch, batch_idx: int
    ) -> None:
        turn = outputs["turns"].get(ADVERSARY)
        if turn is None or not is_log_step(trainer, batch_idx):
            return
        loss = turn["total"].mean().item()
        logits = [turn[name].abs().mean().item() for name in turn if name.startswith("part/logit")]
        if any(map(math.isnan, logits)):  # the adversary does not learn yet
            return
        logit = max(logits, default=0.0)
        self.in_a_row = self.in_a_row + 1 if loss < self.smallest_loss or logit > self.largest_logit else 0
        if self.in_a_row == self.patience:
            rank_zero_warn(
                f"step {trainer.global_step}: for {self.patience} logs the adversary has told real from fake too well, "
                f"now with a loss of {loss:.3g} and logits of {logit:.3g}; {REMEDY}"
            )

    def state_dict(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.in_a_row = state["in_a_row"]

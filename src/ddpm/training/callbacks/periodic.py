"""Schedules drawing and evaluation: every n steps, at the end of training, and on resume if work was interrupted."""

from abc import abstractmethod

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from ddpm.base.types import Batch
from ddpm.training.callbacks.interruption import SideWork
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule


class PeriodicWork(SideWork):
    """Calls `work` every `every_n_steps` optimizer steps and at the end of training, at most once per step.

    Checkpoints record the last step with completed work, so that a resumed run does work that was interrupted.
    """

    def __init__(self, every_n_steps: int) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.last_step = 0
        self.trained = False

    @abstractmethod
    def work(self, trainer: Trainer, module: DiffusionModule) -> None: ...

    @abstractmethod
    def is_done(self, trainer: Trainer, module: DiffusionModule) -> bool:
        """Whether the files of this step's work exist; called if no step is left to train."""

    def on_work_end(self, trainer: Trainer) -> None:
        """Called after the work of a step is recorded."""

    def work_once(self, trainer: Trainer, module: DiffusionModule) -> None:
        if trainer.global_step != self.last_step:
            self.work(trainer, module)
            self.last_step = trainer.global_step
            self.on_work_end(trainer)

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.trained = True
        if trainer.global_step % self.every_n_steps == 0:
            self.work_once(trainer, module)  # interrupted work of the step at which the run resumes

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        if ends_step(trainer, batch_idx) and trainer.global_step % self.every_n_steps == 0:
            self.work_once(trainer, module)

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.work_once(trainer, module)

    def on_fit_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        """If the run was killed during its last work, do it on resume, although no step is left."""
        if not self.trained and not trainer.strategy.broadcast(self.is_done(trainer, module)):
            module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
            self.work_once(trainer, module)

    def state_dict(self) -> dict[str, int]:
        return {"last_step": self.last_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.last_step = state["last_step"]

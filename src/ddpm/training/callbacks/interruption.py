"""SIGTERM, SIGINT (Ctrl-C), SIGHUP and a scheduler's SIGUSR1 and SIGUSR2 save a checkpoint and end all ranks.

The exit code is 128 + the signal's number.
"""

import signal
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ddpm.interruption import SIGNALS, End, Interrupted, ignored_by_nohup
from ddpm.training import slurm
from ddpm.training.callbacks.checkpoints import Checkpoints, last_good
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule, unwatched

REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # sbatch --signal=USR1@90; submitit's jobs
FAILED = 1000  # no signal's number


class FailedElsewhere(Exception):
    """Another rank's drawing or measuring has failed."""


class Interruption(Callback):
    """A signal is noted, and acted on at the end of the step, of a validation batch or of a step of the sampler.

    Ranks agree on it, whichever of them received it. Further signals change nothing.
    requeue: in a SLURM job, SIGUSR1 and SIGUSR2 put the job back into the queue after saving.
    """

    def __init__(self, requeue: bool) -> None:
        self.requeue = requeue
        self.received = 0  # the signal's number
        self.before: dict[int, Any] = {}
        self.group: dist.ProcessGroup | None = None
        self.shared_val_batches = 0

    # Receiving

    def on_fit_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        if trainer.world_size > 1 and dist.get_backend() != "gloo":
            self.group = dist.new_group(backend="gloo")  # to agree without waiting for the GPU
        self.before = {n: signal.signal(n, self.note) for n in SIGNALS if not ignored_by_nohup(n)}
        module.watch_sampling = lambda state: self.stop_if_asked(trainer)

    def note(self, number: int, frame: Any) -> None:
        self.received = self.received or number

    def teardown(self, trainer: Trainer, module: DiffusionModule, stage: str) -> None:
        module.watch_sampling = unwatched
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    # Acting

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if ends_step(trainer, batch_idx):
            self.stop_if_asked(trainer)

    def on_validation_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.shared_val_batches = self.agreed(trainer, sum(trainer.num_val_batches), dist.ReduceOp.MIN)

    def on_validation_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if batch_idx < self.shared_val_batches:  # ranks may differ by one batch, and all must ask
            self.stop_if_asked(trainer)

    def stop_if_asked(self, trainer: Trainer) -> None:
        """Called on all ranks at the same point."""
        number = self.agreed(trainer, self.received, dist.ReduceOp.MAX)
        if not number:
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.save(trainer)
        name = signal.Signals(number).name
        where = f"{name} at step {trainer.global_step}: saved {last_good(trainer)}"
        rank_zero_info(f"{where}. The same command with resume=auto goes on")
        if self.requeue and number in REQUEUE:
            try:
                self.put_back(trainer, number)
            finally:
                self.agreed(trainer, 0, dist.ReduceOp.MAX)  # the first task to end may take the others along
        raise Interrupted(number, kept="")

    def put_back(self, trainer: Trainer, number: int) -> None:
        """In the way of the program that started the job, if it left a handler; submitit's counts how often."""
        launcher = self.before.get(number)
        if callable(launcher) and not isinstance(launcher, End):
            launcher(number, None)  # it may end this process
        elif trainer.is_global_zero:
            slurm.requeue()

    def agreed(self, trainer: Trainer, number: int, how: Any) -> int:
        if trainer.world_size == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, how, group=self.group)
        return int(shared)

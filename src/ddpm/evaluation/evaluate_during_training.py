"""Evaluation of samples of the averaged weights during training, so that the best checkpoint can be kept."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from ddpm.base import check
from ddpm.base.environment import environment_of
from ddpm.base.progress import stage
from ddpm.base.types import Cond
from ddpm.checkpoint.stored_config import FITTED, Fitted
from ddpm.config.guidance import unguided
from ddpm.diffusion.conditions.base import LABEL
from ddpm.evaluation.reference import ImageReference
from ddpm.metrics.classes import describe_classes
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.protocol import EvaluationProtocol, Result, read_result, result_name, write_result
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.interruption import sampling_progress, stop_if_signalled
from ddpm.training.callbacks.periodic import PeriodicWork
from ddpm.training.callbacks.sample_grid import preview_inputs
from ddpm.training.logs import log_numbers
from ddpm.training.module import DiffusionModule


def sample_inputs(trainer: Trainer, model: DiffusionModel, ids: Tensor) -> tuple[Cond, Tensor | None]:
    """Conditions and start images of samples: with captions, those of the training images, as in evaluate.py."""
    data = trainer.datamodule.split("train")
    if data.captions is None or data.of_texts is None:
        return preview_inputs(trainer, model, ids)
    conditions = data.conditions(data.indices[ids.cpu() % len(data)])
    return model.sample_condition.of({name: part.to(model.device) for name, part in conditions.items()}), None


class EvaluateDuringTraining(PeriodicWork):
    """Logs eval/NAME and eval/NAME_error, and writes each result to RUN/evaluations as evaluate.py does.

    evaluator: not part of the module, and so not in checkpoints. every_n_steps: optimizer steps between evaluations;
    another one follows at the end of training. Samples 0..num_samples-1, from the same noise each time, are compared
    with the training split. batch_size: samples at once on each device. guided: sample with the run's guidance, not
    without any as evaluate.py does by default. describe: function from the values fitted to the data to the
    description of the model by group.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        every_n_steps: int,
        num_samples: int,
        batch_size: int,
        guided: bool,
        describe: Callable[[Fitted], dict[str, Any]],
    ) -> None:
        super().__init__(check.positive_int("evaluate.every_n_steps", every_n_steps))
        self.describe = describe
        self.evaluator = evaluator
        self.num_samples = check.positive_int("evaluate.num_samples", num_samples)
        self.batch_size = check.positive_int("evaluate.batch_size", batch_size)
        self.guided = check.boolean("evaluate.guided", guided)
        self.reference: ImageReference | None = None
        self.numbers: dict[str, float] = {}  # of the last evaluation, none if it failed

    def on_fit_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Raise errors of the evaluation before the first step, and find out the names of its values."""
        data, ids = trainer.datamodule.split("train"), torch.arange(self.num_samples, device=module.device)
        model = self.sampled_model(module)
        cond = (sample_inputs(trainer, model, some)[0] for some in ids.split(self.batch_size))
        labels = torch.cat(
            [each[LABEL].cpu() for each in cond if LABEL in each] or [torch.full((self.num_samples,), -1)]
        )
        self.logged_names = [f"eval/{name}" for name in self.evaluator.names(data.labels[data.indices], labels)]

    def work(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.numbers = {}
        with self.tolerated(trainer, "the evaluation"):
            self.show_real(trainer)
            self.evaluator.reset_fake()
            num_batches = math.ceil(math.ceil(self.num_samples / trainer.world_size) / self.batch_size)
            with sampling_progress(trainer, module, "evaluation", num_batches):
                for images, ids, labels in self.generated(trainer, module):
                    self.evaluator.update_fake(images, ids, labels)
            stop_if_signalled(trainer)
            with stage("evaluation: measuring", trainer.is_global_zero):
                estimates = self.evaluator.compute()
            self.write(trainer, module, estimates)
            numbers = {f"eval/{name}": estimate.value for name, estimate in estimates.items()}
            errors = {f"eval/{name}_error": e.error for name, e in estimates.items() if e.error is not None}
            log_numbers(trainer, {**numbers, **errors})
            stop_if_signalled(trainer)
            self.numbers = numbers

    def on_work_end(self, trainer: Trainer) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints) and self.numbers:
                callback.on_evaluation_end(trainer, self.numbers)

    def is_done(self, trainer: Trainer, module: DiffusionModule) -> bool:
        """Whether this step was evaluated in training. Results of evaluate.py are told apart by their field "ckpt"."""
        for path in (Path(trainer.default_root_dir) / "evaluations").glob(f"{trainer.global_step:08d}_*.json"):
            try:
                if "ckpt" not in read_result(path).subject:
                    return True
            except ValueError as error:
                rank_zero_warn(f"{error}; this file is skipped")
        return False

    def show_real(self, trainer: Trainer) -> None:
        """Give the evaluator the real images, once."""
        if self.reference is None:
            reference = ImageReference(trainer.datamodule, "train", None, ReferenceCache())
            # renewed, since an earlier attempt may have failed
            self.evaluator = self.evaluator.renewed().to(trainer.strategy.root_device)
            if self.evaluator.needs_real:
                reference.show(self.evaluator, trainer, lambda: stop_if_signalled(trainer))
            self.reference = reference

    def sampled_model(self, module: DiffusionModule) -> DiffusionModel:
        return module.model if self.guided else unguided(module.model)

    def generated(self, trainer: Trainer, module: DiffusionModule) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Batches of this rank's samples with their numbers and labels, None if the model has no classes.

        All ranks sample equally many batches, because they exchange signals at each sampling step.
        """
        each = -(-self.num_samples // trainer.world_size)
        ids = torch.arange(trainer.global_rank, each * trainer.world_size, trainer.world_size, device=module.device)
        model = self.sampled_model(module)
        for some in ids.split(self.batch_size):
            cond, begun_at = sample_inputs(trainer, model, some)
            with module.model.inference(trainer.precision_plugin.forward_context()):
                images = model.generate(some, model.best_weights, cond, begun_at).float()
            wanted = some < self.num_samples
            yield images[wanted], some[wanted], cond[LABEL][wanted] if LABEL in cond else None

    @rank_zero_only
    def write(self, trainer: Trainer, module: DiffusionModule, estimates: dict[str, Estimate]) -> None:
        assert self.reference is not None
        run = Path(trainer.default_root_dir)
        sampler, labels = module.model.sampler, next(iter(self.evaluator.generated.values())).labels
        protocol = EvaluationProtocol(**self.evaluator.provenance(), **self.reference.identity)
        subject = {
            "run": run.name,
            "step": trainer.global_step,
            "seed": module.model.sample_rng.seed,
            "weights": module.model.describe_weights(module.model.best_weights),
            "sampler": sampler.describe(),
            "steps": sampler.steps or sampler.process.T,
            "precision": str(trainer.precision),
            "image_shape": list(module.model.image_shape),
            **self.describe(module.model.config[FITTED]),
            **({"labels": describe_classes(labels)} if (labels >= 0).any() else {}),
            **({"conditions_from": self.reference.identity["data_hash"]} if trainer.datamodule.of_texts else {}),
        }
        result = Result.of(estimates, protocol=protocol, subject=subject, environment=environment_of(trainer))
        write_result(run / "evaluations" / f"{result_name(result)}.json", result)

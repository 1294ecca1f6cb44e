"""How good a trained model's images are: generated, measured against the data, and stored with the protocol."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor

from ddpm import build
from ddpm.console import quiet
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.generation import GenerationDataModule
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.protocol import EvaluationProtocol, device_name, write_result
from ddpm.sample import title
from ddpm.training.callbacks.progress import GenerationProgress
from ddpm.training.module import DiffusionModule
from ddpm.training.wandb_run import reopened


class Scoring(Callback):
    """Shows the evaluator the real images, then each generated batch; every rank sees its share."""

    def __init__(self, evaluator: Evaluator, data: ImageDataModule, split: str, num_real: int | None) -> None:
        self.evaluator, self.data, self.split, self.num_real = evaluator, data, split, num_real
        self.values: dict[str, float] = {}

    def on_predict_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.evaluator.to(module.device)
        self.data.trainer = trainer
        self.data.split(self.split, self.num_real)  # opens the data: what is wrong with them shows before the work
        if self.evaluator.needs_real:
            for batch in self.data.eval_loader(self.split, self.num_real):
                self.evaluator.update_real(batch["image"], batch["index"])

    def on_predict_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Tensor, batch: Any, batch_idx: int, *_: int
    ) -> None:
        self.evaluator.update_fake(outputs.float(), batch["index"])

    def on_predict_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.values = self.evaluator.compute()


def run(config: DictConfig) -> None:
    quiet()
    samples = GenerationDataModule(config.num_samples, config.batch_size)
    path = build.checkpoint_path(config.ckpt)
    evaluator = build.instantiate(config.metric, "metric").to("cpu")  # loads the extractor: missing weights show now
    module, stored = build.from_checkpoint(path, build.changes(config))
    module.use_for_prediction(config.weights, config.seed)
    if "source" not in stored.data:
        raise ValueError(f"ckpt={path} does not say what it was trained on: choose the data, as in data=cifar10")
    data = build.data(stored)
    rank_zero_only(data.prepare_data)()
    scoring = Scoring(evaluator, data, config.split, config.num_real)
    trainer = build.trainer(config)
    trainer.callbacks += [scoring, GenerationProgress(samples.num_samples)]
    trainer.predict(module, samples, return_predictions=False)
    out = Path(config.out or path.with_name(f"{title(path)}.{short_name(scoring.values)}.json"))
    store(out, scoring.values, protocol(config, module, data, evaluator, trainer))
    log_to_run(path, scoring.values)


def protocol(
    config: DictConfig, module: DiffusionModule, data: ImageDataModule, evaluator: Evaluator, trainer: Trainer
) -> EvaluationProtocol:
    """Everything that must be equal before two numbers are compared."""
    return EvaluationProtocol(
        **evaluator.provenance(),
        data=data.name,
        split=config.split,
        data_hash=data.content_hash(config.split, config.num_real),
        sampler=module.sampler.describe(),
        steps=module.sampler.steps or module.sampler.process.T,
        seed=config.seed,
        weights=module.describe_weights(module.predict_weights),
        device=device_name(trainer.strategy.root_device),
        precision=str(trainer.precision),
    )


def short_name(values: dict[str, float]) -> str:
    """ "fid_is_inception_50k" for fid_inception_50k, is_inception_50k and is_std_inception_50k."""
    ends = min(values, key=len).split("_", 1)[1]
    scores = [name.removesuffix(f"_{ends}") for name in values]
    return "_".join([*(score for score in scores if not score.endswith("_std")), ends])


@rank_zero_only
def store(path: Path, values: dict[str, float], protocol: EvaluationProtocol) -> None:
    write_result(path, values, protocol)
    for name, value in values.items():
        print(f"{name}  {value:.4f}")
    print(f"stored with its protocol in {path}")


@rank_zero_only
def log_to_run(checkpoint: Path, values: dict[str, float]) -> None:
    """The values beside the training's own, in the W&B run that made the checkpoint, if there was one.

    A folder of weights is of no run, and does not say at which step it was made.
    """
    logger = None if checkpoint.is_dir() else reopened(checkpoint.parent.parent)
    if logger is not None:
        step = build.read_checkpoint(checkpoint)["global_step"]
        logger.log_metrics({f"eval/{name}": value for name, value in values.items()}, step=step)
        logger.experiment.finish()

"""One training run, from a configuration to a checkpoint, pictures and numbers."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm import build, check
from ddpm.console import quiet
from ddpm.dry_run import report


def run(config: DictConfig) -> None:
    quiet()
    torch.set_float32_matmul_precision("high")
    if check.boolean("dry_run", config.dry_run):
        config = OmegaConf.merge(config, {"logger": None, "callbacks": None})
    module = build.module(config)
    if config.resume is not None:
        refuse_another_model(config.resume, module)
    data = build.data(config)
    trainer = build.trainer(config)
    if config.dry_run:
        rank_zero_only(print)(report(config, module, data, trainer))
        return
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    announce(config, module, trainer)
    trainer.fit(module, data, ckpt_path=config.resume, weights_only=True)
    last = f"{config.run_dir}/checkpoints/last.ckpt"
    trainer.save_checkpoint(last, weights_only=False)
    summary(config, trainer, last)
    for logger in trainer.loggers:
        logger.finalize("success")


def refuse_another_model(resume: str, module: build.DiffusionModule) -> None:
    """A checkpoint of other shapes cannot be continued; Lightning would say so with a page of names."""
    stored = build.read_checkpoint(Path(resume), "resume")["state_dict"]
    ours = module.state_dict()
    different = [key for key in ours.keys() | stored.keys() if shape(ours.get(key)) != shape(stored.get(key))]
    if different:
        raise ValueError(f"resume={resume} holds another model: {len(different)} weights differ, as {min(different)}")


def shape(weight: object) -> object:
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight)


@rank_zero_only
def announce(config: DictConfig, module: build.DiffusionModule, trainer: Trainer) -> None:
    parameters = sum(p.numel() for p in module.network.parameters())
    place = f"{trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}"
    print(f"{config.name}: {parameters:,} parameters, {config.trainer.max_steps:,} steps of {config.data.batch_size}")
    print(f"on {place}; folder {config.run_dir}", flush=True)


@rank_zero_only
def summary(config: DictConfig, trainer: Trainer, checkpoint: str) -> None:
    """Where everything lies."""
    print(f"\ndone: {trainer.global_step:,} steps, {trainer.global_step * config.data.batch_size:,} images")
    lines = {"checkpoint": checkpoint}
    for name in ("samples/ema", "samples/raw", "denoising"):
        picture = f"{config.run_dir}/{name}/{trainer.global_step:08d}.png"
        if Path(picture).exists():
            lines[name] = picture
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            lines["metrics"] = f"{logger.log_dir}/metrics.csv"
        elif isinstance(logger, WandbLogger):
            lines["W&B"] = logger.experiment.dir
        elif isinstance(logger, TensorBoardLogger):
            lines["TensorBoard"] = logger.log_dir
    for name, where in lines.items():
        print(f"  {name:12} {where}")

"""train.py: run one training, from a configuration to checkpoints, sample grids and logged values."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from ddpm.base import check
from ddpm.base.atomic import remove_partial_files, write_atomically
from ddpm.base.environment import environment_of, write_environment
from ddpm.base.exit_codes import LOST, ProcessLost
from ddpm.base.memory import is_out_of_memory
from ddpm.checkpoint.folder import newest_intact, set_aside
from ddpm.checkpoint.groups import chosen_at_the_start
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.stored_config import FITTED, PARTS, Fitted, targets
from ddpm.commands.dry_run import data_or_assumed, describe_run
from ddpm.commands.rehearsal import choose_max_steps
from ddpm.commands.summary import print_summary
from ddpm.config import analytic, build, fitting
from ddpm.config.checkpoint_path import fetch_checkpoints
from ddpm.config.codec import with_latent_shape
from ddpm.config.field_types import check_type
from ddpm.config.load import guide
from ddpm.config.model import NOTHING
from ddpm.config.sizing import choose_sizes
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.order import micro_batch_size
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.classification import Classification
from ddpm.evaluation.evaluators import training_evaluations
from ddpm.model.diffusion_model import no_samples
from ddpm.runs import devices, launch, resume, run_folder
from ddpm.runs.console import quiet_libraries, say
from ddpm.runs.lease import lock_folder
from ddpm.runs.portable import to_portable
from ddpm.runs.typed import chosen_options
from ddpm.schedule_check.examination import verdict
from ddpm.training.callbacks.checkpoints import Checkpoints, another_is_lost, last_good
from ddpm.training.metrics_table import MetricsTable
from ddpm.training.module import DiffusionModule
from ddpm.training.turn import describe_sizes
from ddpm.training.wandb_run import finished_runs

TRAINING_PARTS = ("global_step", "epoch", "loops", "optimizer_states", "lr_schedulers", "callbacks", "batches")
"""What a checkpoint has beside weights and configuration."""


@finished_runs()
def run_train(config: DictConfig) -> None:
    """Train within a lock on the run folder, so that no other training uses it. A dry run does not use the folder."""
    locks = launch.is_first_process() and not check.boolean("dry_run", config.dry_run)
    check_type("resume.path", config.resume.path, str | None)
    check_type("resume.allow", config.resume.allow, list[str])
    waits = config.resume.path is not None
    with lock_folder(Path(config.run_dir), waits=waits) if locks else nullcontext():
        train(config)


def train(config: DictConfig) -> None:
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    if config.dry_run:
        config = OmegaConf.merge(config, {"logger": None, "callbacks": None})
    devices.precision(config.trainer.precision, devices.accelerator(config.trainer.accelerator))  # fails early
    config = with_latent_shape(fetch_checkpoints(config), guide)
    checkpoint = resume.find_checkpoint(config.resume.path, config.run_dir)
    data = data_or_assumed(config) if config.dry_run else build.data(config)
    if checkpoint and any(is_open(config, key) for key in chosen_at_the_start()):
        resume.keep_chosen(config, read_stored(config, checkpoint))
    fitted = fitting.fitted_to_data(config, data, earlier_values(config, checkpoint))
    choose_what_is_open(config, checkpoint, data, fitted)
    module = build.module(config, fitted)
    data.of_texts = getattr(module.model.condition, "rows", None)
    analytic.refuse(module.model.sampler, module.loss)
    refuse_what_cannot_be_drawn(config, module)
    step = prepare_to_resume(config, checkpoint, module, data) if checkpoint else 0
    trainer = build.trainer(config, [*training_evaluations(config), *build.preparations(module.model.codec)])
    if not trainer.checkpoint_callbacks:  # the trained weights are always saved
        trainer.callbacks.append(Checkpoints(config.trainer.max_steps, 1, None, None, "min"))
    refuse_to_sweep_with_children(trainer)
    refuse_micro_batches(module, data, trainer)
    if config.dry_run:
        rank_zero_only(print)(describe_run(config, module, data, trainer))
        return
    for logger in trainer.loggers:
        if isinstance(logger, MetricsTable):
            logger.continue_from(step)
        sizes = {"num_parameters": module.own_turn.num_parameters}
        about = {"options": chosen_options(), FITTED: module.model.config[FITTED], **sizes}
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True) | about)
    start = time.perf_counter()
    print_run(config, module, trainer, checkpoint, step)
    claim_folder(config, module, trainer, step)
    with explain_interruptions(config, trainer):
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    for logger in trainer.loggers:
        logger.finalize("success")
    print_summary(config, module, trainer, checkpoint, step, time.perf_counter() - start)


def earlier_values(config: DictConfig, checkpoint: Path | None) -> Fitted:
    """The values fitted to the data that a resumed run keeps: those of latents, which take a pass over all images."""
    if checkpoint is None or "first_stage" not in config.codec:
        return NOTHING
    return {"codec": read_stored(config, checkpoint)[FITTED].get("codec", {})}


def read_stored(config: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """The configuration of the checkpoint."""
    return read_checkpoint(checkpoint, "resume", known=set(targets(to_portable(config))))["config"]


def is_open(config: DictConfig, key: str) -> bool:
    """Whether a field is null until it is chosen at the start of the run."""
    group, field = key.split(".")
    return field in config[group] and config[group][field] is None


def choose_what_is_open(config: DictConfig, checkpoint: Path | None, data: ImageDataModule, fitted: Fitted) -> None:
    """Set fields that are null: those of a network by size, and the number of steps, and print the choice."""
    timed = config.limits.max_minutes is not None
    if timed and checkpoint is None and not is_open(config, "trainer.max_steps"):
        raise ValueError("limits.max_minutes chooses trainer.max_steps: set trainer.max_steps=null with it")
    if not any(is_open(config, key) for key in chosen_at_the_start()):
        return
    device, num_images = devices.accelerator(config.trainer.accelerator), data.num_listed()
    chosen = choose_sizes(config, num_images, device, timed and not config.dry_run)
    if chosen:
        rank_zero_only(say)(f"chosen for {num_images:,} images on a {device.upper()}: {' '.join(chosen)}")
    if is_open(config, "trainer.max_steps"):
        rank_zero_only(say)(choose_max_steps(config, data, fitted, rehearse))


def rehearse(config: DictConfig, trainer: Trainer, module: DiffusionModule, data: ImageDataModule) -> None:
    refuse_to_sweep_with_children(trainer)
    with explain_interruptions(config, trainer):
        trainer.fit(module, data)


def refuse_what_cannot_be_drawn(config: DictConfig, module: DiffusionModule) -> None:
    """Raise ValueError for pictures and metrics of images that the network does not make."""
    dropout = module.model.condition.dropout
    if isinstance(module.loss, Classification) and dropout:
        check.fail("cond.dropout", dropout, "0 with loss=classification, which needs every label")
    drawn = [name for name in ("samples", "denoising", "reconstructions") if (config.callbacks or {}).get(name)]
    reconstructs = getattr(module.network, "reconstructs", False)
    if "reconstructions" in drawn and not reconstructs:
        raise ValueError("callbacks.reconstructions needs a first stage, as model=autoencoder_tiny; set it to null")
    given = [f"callbacks.{name}" for name in drawn if name != "reconstructions"]
    given += ["metric"] if config.get("metric") else []
    if given and no_samples(module.network):
        remedy = ", or choose callbacks=first_stage" if reconstructs and given[0] != "metric" else ""
        what = no_samples(module.network).partition(",")[0]
        raise ValueError(f"{given[0]} needs images, but {what} generates none: add {given[0]}=null{remedy}")


def refuse_micro_batches(module: DiffusionModule, data: ImageDataModule, trainer: Trainer) -> None:
    """Raise ValueError for micro-batches of a size that a network does not take."""
    size = micro_batch_size(data.batch_size, trainer.world_size, trainer.accumulate_grad_batches)
    for turn in module.turns:
        getattr(turn.network, "check_batch", lambda num_images: None)(size)


def refuse_to_sweep_with_children(trainer: Trainer) -> None:
    """Raise ValueError for a sweep with a launcher that would run the whole sweep again in each child process."""
    sweeps = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    launcher = trainer.strategy.launcher
    if not sweeps or trainer.num_devices == 1 or not isinstance(launcher, _SubprocessScriptLauncher):
        return
    if not trainer.strategy.cluster_environment.creates_processes_externally:
        raise ValueError(
            f"-m with trainer.devices={trainer.num_devices} would start the sweep again in every process; use "
            "trainer.strategy=ddp_spawn, the launcher of a scheduler (docs/clusters.md), or one command per setting"
        )


def prepare_to_resume(config: DictConfig, path: Path, module: DiffusionModule, data: ImageDataModule) -> int:
    """Check that the checkpoint belongs to this configuration, before any long work. Returns its step."""
    stored = read_checkpoint(path, "resume", known=set(targets(module.model.config)))
    resume.refuse_changes(path, stored["config"], module.model.config, config.resume.allow)
    data.other_content_is_allowed = "data.content" in config.resume.allow
    missing = [name for name in TRAINING_PARTS if name not in stored]
    if missing:
        raise ValueError(
            f"resume={path} has weights, but not what a training needs to continue: {', '.join(missing)} are missing; "
            "choose a checkpoint that train.py wrote, or start a new run"
        )
    states = module.state_dict(), stored["state_dict"]
    ours, theirs = ({key: getattr(each, "shape", type(each)) for key, each in state.items()} for state in states)
    different = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    if different:
        raise ValueError(f"resume={path} holds another model: {len(different)} weights differ, as {min(different)}")
    return stored["global_step"]


@rank_zero_only
def claim_folder(config: DictConfig, module: DiffusionModule, trainer: Trainer, step: int) -> None:
    """Write the settings and environment of this run, rename checkpoints after `step`, and remove incomplete ones."""
    folder = Path(config.run_dir) / "checkpoints"
    remove_partial_files(folder)
    text = yaml.safe_dump(module.model.config, sort_keys=False, allow_unicode=True)
    write_atomically(folder / run_folder.SETTINGS, text.encode())
    set_aside(folder, step)
    if step < config.trainer.max_steps:
        write_environment(environment_of(trainer), folder.parent, f"environment_{step:08d}")


@contextmanager
def explain_interruptions(config: DictConfig, trainer: Trainer) -> Iterator[None]:
    """Raise one clear error for an out-of-memory error or the loss of another process."""
    try:
        yield
    except ProcessExitedException as error:  # of strategy=ddp_spawn
        raise SystemExit(error.exit_code if error.exit_code > 0 else LOST) from error
    except ProcessRaisedException as error:
        raise ValueError(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ValueError(out_of_memory(config, trainer)) from error
        if trainer.world_size > 1 and another_is_lost(error):
            raise ProcessLost(describe_lost_steps(config, trainer)) from error
        raise


def describe_lost_steps(config: DictConfig, trainer: Trainer) -> str:
    good = newest_intact(Path(config.run_dir) / "checkpoints")
    return (
        f"rank {trainer.global_rank} ends, because another process of this run is gone or hangs; its own message or "
        f"the system's log states the cause. Last good checkpoint: {good or 'none yet'}; resume=auto continues from it"
    )


def out_of_memory(config: DictConfig, trainer: Trainer) -> str:
    """The error message, with the next larger accumulation that keeps the global batch size."""
    batch, world, now = config.data.batch_size, trainer.world_size, trainer.accumulate_grad_batches
    here = f"out of memory on {trainer.strategy.root_device}: {micro_batch_size(batch, world, now)} images at once"
    more = [k for k in range(now + 1, batch // world + 1) if batch % (world * k) == 0]
    if not more:
        return f"{here}, and fewer are not possible; use a smaller model or more devices"
    remedy = f"trainer.accumulate_grad_batches={more[0]} keeps the batch of {batch} with {batch // world // more[0]}"
    good = last_good(trainer)
    resuming = "; resume=auto 'resume.allow=[trainer.accumulate_grad_batches]' continues the run" if good else ""
    return f"{here}; {remedy}{resuming}"


@rank_zero_only
def print_run(config: DictConfig, module: DiffusionModule, trainer: Trainer, path: Path | None, step: int) -> None:
    place = f"{trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}"
    at_most = "at most " if {"max_time", "max_epochs", "fast_dev_run"} & set(config.trainer) else ""
    steps = f"{at_most}{config.trainer.max_steps:,} steps of {config.data.batch_size}"
    say(f"{config.name}: {describe_sizes(module.turns)} parameters, {steps}")
    say(f"on {place}; folder {config.run_dir}")
    warmup, most = config.optimizer.get("warmup_steps", 0), config.trainer.max_steps
    if warmup > most > 0:
        say(f"note: optimizer.warmup_steps={warmup} is more than all {most} steps: the learning rate stays low")
    has_schedule = len(module.turns) == 1 and not getattr(module.network, "reconstructs", False)
    if isinstance(module.model.sampler.process, GaussianDiffusion) and has_schedule:
        leaf = OmegaConf.to_container(config.schedule, resolve=True)
        say(f"schedule: {verdict(module.model.sampler.process.schedule, leaf)}")
    own = sorted({target for target in targets(module.model.config) if not target.startswith(PARTS)})
    if own:
        packages = ",".join(sorted({target.partition(".")[0] for target in own}))
        say(f"uses your own code: {', '.join(own)}; commands that load this run need trust=[{packages}]")
    if path and step >= config.trainer.max_steps:
        say(f"{path} already has {step:,} steps: nothing is left to train")
    elif path:
        say(f"continuing from {path}, at step {step:,}")
    elif config.resume.path == "auto":
        say("no run with these settings was found: starting a new one")

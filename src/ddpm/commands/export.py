"""Export a trained model to a folder: python -m ddpm export ckpt=... format=...   (--help lists the fields)"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.program import CONF
from ddpm.checkpoint.reading import holding
from ddpm.commands import cli
from ddpm.commands.model_card import write_card
from ddpm.config import load, wiring
from ddpm.config.checkpoint_path import checkpoint_path, fetch_checkpoints
from ddpm.config.exported import exported_network, to_exported
from ddpm.generation.identity import run_folder_of, stem
from ddpm.interop import exported_folder, hub, pipeline
from ddpm.interop.write_folder import write_folder
from ddpm.model.diffusion_model import DiffusionModel


@holding()
def run_export(config: DictConfig) -> None:
    write, use = FORMATS[check.one_of("format", config.format, FORMATS)]
    repo = config.get("push")
    if repo is not None:
        hub.check_upload(str(repo))
    path = checkpoint_path(fetch_checkpoints(config).ckpt)
    model, stored = load.from_checkpoint(path, load.changes(config))
    model.use_for_prediction(config.weights, seed=0)
    weights = model.predict_weights
    out = Path(str(config.out or run_folder_of(path) / f"{config.format}_{stem(path)}_{weights}"))
    with write_folder(out) as partial:
        write(partial, model, stored)
        if repo is not None:
            write_card(partial, repo, path, model, stored)
    steps = model.sampler.steps or model.sampler.process.T
    print(f"{model.describe_weights(weights)} weights in {out}")
    print(use.format(out=str(out), steps=steps))
    if repo is not None:
        push(out, repo)


def push(folder: Path, repo: str) -> None:
    problem = hub.upload(folder, repo)
    if problem is None:
        print(f"uploaded to hf:{repo}")
    else:
        print(f"not uploaded, because {problem}. Upload it later: {hub.upload_command(folder, repo)}")


def write_safetensors(folder: Path, model: DiffusionModel, stored: DictConfig) -> None:
    exported = to_exported(model, model.predict_weights)
    if "first_stage" in stored.codec:
        stage = load.guide(checkpoint_path(str(stored.codec.first_stage), "codec.first_stage"))
        stage.use_for_prediction(stored.codec.weights, seed=0)
        exported_folder.save_first_stage(folder, to_exported(stage, stage.predict_weights))
        exported = exported_folder.with_own_first_stage(exported)
    exported_folder.save_exported_folder(folder, exported)


def write_diffusers(folder: Path, model: DiffusionModel, stored: DictConfig) -> None:
    groups = ("process", "codec", "objective", "clip", "sampler")
    parts = {group: OmegaConf.to_container(stored[group], resolve=True) for group in groups}
    words = pipeline.part_words(parts) | pipeline.part_words({"variance": parts["sampler"].get("variance")})
    process = model.sampler.process
    scheduler = pipeline.scheduler_config(words, process.schedule.alpha_bar, model.sampler.times(process.T))
    network = exported_network(model, model.predict_weights)
    shape = model.image_shape
    wiring.complete(
        pipeline.save_pipeline, "model", folder=folder, network=network, scheduler=scheduler, image_shape=shape
    )


FORMATS = {
    "safetensors": (
        write_safetensors,
        "use it as ckpt={out}; a classifier as guidance.classifier={out}, a first stage as codec.first_stage={out}",
    ),
    "diffusers": (write_diffusers, "DDPMPipeline.from_pretrained({out!r})(num_inference_steps={steps})"),
}
"""The function that writes each format, and the hint printed after an export."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(config: DictConfig) -> None:
    cli.run_job(run_export, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "export")

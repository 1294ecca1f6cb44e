"""Export a trained model to a folder: python -m ddpm export ckpt=... format=...   (--help lists the fields)"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.program import CONF
from ddpm.checkpoint.reading import holding
from ddpm.checkpoint.stored_config import FITTED
from ddpm.commands import cli
from ddpm.commands.model_card import write_card
from ddpm.config import load, wiring
from ddpm.config.checkpoint_path import checkpoint_path, fetch_checkpoints
from ddpm.config.codec import FIRST_STAGE
from ddpm.config.exported import exported_network, to_exported
from ddpm.diffusion.conditions.base import ClassLabel
from ddpm.evaluation.targets import checkpoint_step
from ddpm.generation.identity import run_folder_of, stem
from ddpm.interop import exported_folder, hub, pipeline
from ddpm.interop.diffusers_classes import NO_INTERVAL, class_arguments, guidance_arguments
from ddpm.interop.diffusers_first_stage import save_first_stage
from ddpm.interop.write_folder import write_folder
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.model.latent_codec import LatentCodec
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder


@holding()
def run_export(config: DictConfig) -> None:
    write = FORMATS[check.one_of("format", config.format, FORMATS)]
    repo = config.get("push")
    if repo is not None:
        hub.check_upload(str(repo))
    path = checkpoint_path(fetch_checkpoints(config).ckpt)
    about = stated_by(path)
    license = about["license"] = str(config.get("license") or about["license"])
    if not re.fullmatch(r"[\w.+-]{0,64}", license):
        check.fail("license", license, "the identifier of a license, as apache-2.0 or cc-by-4.0")
    model, stored = load.from_checkpoint(path, load.changes(config))
    model.use_for_prediction(config.weights, seed=0)
    weights = model.predict_weights
    out = Path(str(config.out or run_folder_of(path) / f"{config.format}_{stem(path)}_{weights}"))
    with write_folder(out) as partial:
        use = write(partial, model, stored, about)
        if repo is not None:
            write_card(partial, repo, path, model, stored, license)
    steps = model.sampler.steps or model.sampler.process.T
    print(f"{model.describe_weights(weights)} weights in {out}")
    print(use.format(out=str(out), steps=steps))
    if repo is not None:
        push(out, repo)


def stated_by(path: Path) -> dict[str, Any]:
    """Step and license of a checkpoint, or those that an exported folder states."""
    return {"step": checkpoint_step(path), "license": ""} | exported_folder.stated_in(path)


def push(folder: Path, repo: str) -> None:
    problem = hub.upload(folder, repo)
    if problem is None:
        print(f"uploaded to hf:{repo}")
    else:
        print(f"not uploaded, because {problem}. Upload it later: {hub.upload_command(folder, repo)}")


def write_safetensors(folder: Path, model: DiffusionModel, stored: DictConfig, about: dict[str, Any]) -> str:
    exported = replace(to_exported(model, model.predict_weights), **about)
    if "first_stage" in stored.codec:
        path = checkpoint_path(str(stored.codec.first_stage), "codec.first_stage")
        stage = load.guide(path, FIRST_STAGE)
        stage.use_for_prediction(stored.codec.weights, seed=0)
        exported_stage = replace(to_exported(stage, stage.predict_weights), **stated_by(path))
        exported_folder.save_first_stage(folder, exported_stage)
        exported = exported_folder.with_own_first_stage(exported)
    exported_folder.save_exported_folder(folder, exported)
    others = "a classifier as guidance.classifier={out}, a first stage as codec.first_stage={out}"
    return f"use it as ckpt={{out}}; {others}"


def write_diffusers(folder: Path, model: DiffusionModel, stored: DictConfig, about: dict[str, Any]) -> str:
    network, codec = exported_network(model, model.predict_weights), model.codec
    if isinstance(network, KLAutoencoder | VQAutoencoder):
        scale, size = model.config[FITTED].get("codec", {}).get("scale", 1.0), pipeline.side(model.image_shape)
        wiring.complete(save_first_stage, "model", network=network, folder=folder, scale=scale, size=size)
        return f"{'VQModel' if isinstance(network, VQAutoencoder) else 'AutoencoderKL'}.from_pretrained({{out!r}})"
    groups = ["process", "noise", "objective", "cond", "guidance", "clip", "sampler"]
    groups += [] if isinstance(codec, LatentCodec) else ["codec"]
    parts = {group: OmegaConf.to_container(stored[group], resolve=True) for group in groups}
    sampler = parts["sampler"]
    of_the_sampler = {group: sampler[group] for group in ("variance", "timestep_spacing") if group in sampler}
    words = pipeline.part_words(parts) | pipeline.part_words(of_the_sampler)
    process, steps = model.sampler.process, model.sampler.steps or model.sampler.process.T
    scheduler = pipeline.scheduler_config(words, process.schedule, steps, model.sampler.times(process.T))
    text, classes = getattr(model.condition, "text", None), None
    if isinstance(model.condition, ClassLabel):
        classes = class_arguments(model.condition, parts["guidance"])
    elif text is not None:
        scale = guidance_arguments(parts["guidance"], NO_INTERVAL).get("guidance_scale", 1.0)
    about_model = {"scheduler": scheduler, "text": text, "classes": classes}
    save = partial(pipeline.save_pipeline, folder=folder, network=network, **about_model)
    if not isinstance(codec, LatentCodec):
        name, _ = wiring.complete(save, "model", image_shape=model.image_shape)
    elif codec.shifts:
        check.fail("codec.shift", True, "false to be exported for diffusers; format=safetensors exports everything")
    else:
        stage, side = codec.network, pipeline.side(model.image_shape)
        name, place = wiring.complete(save, "model", image_shape=model.latent_shape, first_stage=stage)
        kept = {"network": stage, "folder": folder / place, "scale": codec.scale, "size": side}
        wiring.complete(save_first_stage, "codec", **kept)
    if classes:
        load_it = "DiffusionPipeline.from_pretrained({out!r}, trust_remote_code=True)"
        return f"{load_it}(class_labels=[0, 1, 2], num_inference_steps={{steps}})"
    prompt = "" if text is None else f"{model.condition.default_prompts[0]!r}, guidance_scale={scale}, "
    prompt = prompt.replace("{", "{{").replace("}", "}}")
    return f"{name}.from_pretrained({{out!r}})({prompt}num_inference_steps={{steps}})"


FORMATS = {"safetensors": write_safetensors, "diffusers": write_diffusers}
"""The function that writes each format and returns the hint printed after an export."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(config: DictConfig) -> None:
    cli.run_job(run_export, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "export")

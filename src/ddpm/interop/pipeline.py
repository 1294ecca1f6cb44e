"""Export a model as a folder of a pipeline of diffusers, without diffusers.

Its scheduler is DDPM's, or DDIM's; the number of steps is an argument of its call. Settings that it does not support
raise ValueError.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.diffusion.samplers.published_spacing import ending_at_1, leading, linspace
from ddpm.diffusion.samplers.timestep_spacing import trailing
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.interop import diffusers
from ddpm.interop.configuration import OBJECTIVES, SPACINGS
from ddpm.interop.diffusers_classes import CLASS_NAME, CLASSIFIER_FREE, OTHERWISE, save_class_pipeline
from ddpm.interop.diffusers_latent import conditional_config
from ddpm.interop.diffusers_text import save_bert, save_clip
from ddpm.networks import UNet
from ddpm.networks.autoencoder import VQAutoencoder
from ddpm.networks.text.ldm_bert import LdmBert
from ddpm.networks.text.pretrained import Clip
from ddpm.networks.text_unet import TextUNet

Config = dict[str, Any]

WORDS: dict[str, dict[str, Config]] = {
    "process": {"ddpm.diffusion.gaussian.GaussianDiffusion": {}},
    "noise": {"ddpm.diffusion.noises.base.White": {}},
    "codec": {"ddpm.model.codec.PixelCodec": {}},
    "sampler": {
        "ddpm.diffusion.samplers.ancestral.Ancestral": {},
        "ddpm.diffusion.samplers.ddim.DDIM": {"_class_name": "DDIMScheduler", "set_alpha_to_one": True},
    },
    "guidance": {"ddpm.diffusion.denoiser.no_wrapper": {}, CLASSIFIER_FREE["_target_"]: {}},
    "cond": {
        "ddpm.diffusion.conditions.base.NoCondition": {},
        "ddpm.diffusion.conditions.base.ClassLabel": {},
        "ddpm.diffusion.conditions.caption_text.Caption": {},
    },
    "objective": {f"ddpm.diffusion.objective.{ours}": {"prediction_type": name} for name, ours in OBJECTIVES.items()},
    "clip": {
        "ddpm.diffusion.denoiser.StaticThresholding": {"clip_sample": True, "clip_sample_range": 1.0},
        "ddpm.diffusion.denoiser.DynamicThresholding": {"clip_sample": False, "thresholding": True},
        "ddpm.diffusion.denoiser.no_wrapper": {"clip_sample": False},
    },
    "variance": {
        "ddpm.diffusion.variance.FixedSmall": {"variance_type": "fixed_small"},
        "ddpm.diffusion.variance.FixedLarge": {"variance_type": "fixed_large"},
        "ddpm.diffusion.variance.PublishedFixedLarge": {"variance_type": "fixed_large"},
        "ddpm.diffusion.variance.LearnedRange": {"variance_type": "learned_range"},
    },
    "timestep_spacing": {
        **{f"ddpm.diffusion.samplers.{ours}": {"timestep_spacing": name} for name, ours in SPACINGS.items()},
        "ddpm.diffusion.samplers.timestep_spacing.uniform": {"timestep_spacing": "trailing"},
        "ddpm.diffusion.samplers.published_spacing.ending_at_1": {"set_alpha_to_one": False},
    },
}
"""The entries of scheduler_config.json for each supported part of a model."""

FIELDS = {
    **{"sampler": {"steps", "timestep_spacing", "variance", "latent"}, "process": {"reverse_noise"}},
    **{"guidance": {"order", "scale", "rescale", "rescale_of", "interval"}},  # see `guidance_arguments`
    **{"cond": {"num_classes", "dropout", "names", "text"}},
}
CLIPPED_EPS = "use_clipped_model_output"
NAMES = {
    "StaticThresholding": {"largest": "clip_sample_range"},
    "leading": {"offset": "steps_offset"},
    "DDIM": {"clipped_eps": CLIPPED_EPS},
    "DynamicThresholding": {"percentile": "dynamic_thresholding_ratio", "largest": "sample_max_value"},
}
"""The entries of scheduler_config.json for the fields of a part."""
ONLY = {"eta": 0.0, "negative": ""}
"""Fields with no entry there, and their value in a scheduler of diffusers."""
PIXELS, LATENTS = ("DDPMPipeline", ""), ("LDMPipeline", "vqvae")
WITH_TEXT = {Clip: ("StableDiffusionPipeline", "vae"), LdmBert: ("LDMTextToImagePipeline", "vqvae")}
"""A pipeline and the folder of its first stage, of either kind. Those of text encoders work on latents."""


def save_pipeline(
    folder: Path,
    network: nn.Module,
    scheduler: Config,
    image_shape: Sequence[int],
    first_stage: nn.Module | None = None,
    text: Any = None,
    classes: Config | None = None,
) -> tuple[str, str]:
    """A folder that `from_pretrained` of a pipeline opens, without the first stage itself. Returns the name of the
    pipeline, and the folder of the first stage within that of the pipeline.

    image_shape: `(C, H, W)` of what is diffused. text: the text encoder of the model. classes: see `class_arguments`.
    """
    name, stage = PIXELS if first_stage is None else LATENTS
    unet = network.unet if isinstance(network, TextUNet) else network
    if not isinstance(unet, UNet):
        raise ValueError(f"model={type(network).__name__} cannot be exported for diffusers, only UNet can; {OTHERWISE}")
    channels, height, width = image_shape
    learned = scheduler.get("variance_type") == "learned_range"
    if unet.out_channels != channels * (1 + learned):
        what = "twice the channels" if learned else "the channels"
        need = f"{channels * (1 + learned)}, {what} of the images, to be exported for diffusers ({OTHERWISE})"
        check.fail("out_channels", unet.out_channels, need)
    if first_stage is not None and height != width:
        raise ValueError(f"latents of {height} x {width} cannot be exported for diffusers, only square ones can")
    index: Config = {"scheduler": ["diffusers", scheduler["_class_name"]]}
    if text is None:
        index["unet"], config_of = ["diffusers", "UNet2DModel"], diffusers.config_from
    else:
        name, stage = _pipeline_of(text, first_stage)
        index["unet"], config_of = ["diffusers", "UNet2DConditionModel"], conditional_config
        is_leading, offset = scheduler.get("timestep_spacing") == "leading", scheduler.get("steps_offset", 0)
        if isinstance(text, Clip) and is_leading and offset != 1:
            check.fail("timestep_spacing.offset", offset, f"1 for {name}; {OTHERWISE}")
        scheduler = {"steps_offset": int(isinstance(text, Clip))} | scheduler  # asked for by StableDiffusionPipeline
        index |= save_clip(folder, text) if isinstance(text, Clip) else save_bert(folder, text, network.encoder)
    if unet.num_classes:
        if classes is None or first_stage is not None:
            what = "classes beside another condition" if classes is None else "a model of latents with classes"
            raise ValueError(f"{what} cannot be exported for diffusers; {OTHERWISE}")
        index |= classes
        save_class_pipeline(folder)
    if first_stage is not None:
        index[stage] = ["diffusers", "VQModel" if isinstance(first_stage, VQAutoencoder) else "AutoencoderKL"]
    has_null_class = classes is not None and classes["null_class"] is not None
    diffusers.save_network(unet, folder / "unet", side(image_shape), config_of, has_null_class)
    (folder / "scheduler").mkdir()
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write(folder / "model_index.json", {"_class_name": CLASS_NAME if classes else name, **index})
    return name, stage


def _pipeline_of(text: Any, first_stage: nn.Module | None) -> tuple[str, str]:
    """Raises ValueError for what the pipelines with a text do not support."""
    kind = type(text)
    if kind not in WITH_TEXT:
        reason = f"text={kind.__name__} cannot be exported for diffusers, only Clip and LdmBert can"
    elif first_stage is None:
        reason = "a model of pixels with a text cannot be exported for diffusers, only one of latents can"
    elif kind is Clip and isinstance(first_stage, VQAutoencoder):
        reason = "with text=clip, a first stage of codes cannot be exported for diffusers, only KLAutoencoder can"
    elif kind is LdmBert and first_stage.factor != 8:
        reason = f"with text=ldm_bert, latents of f{first_stage.factor} cannot be exported for diffusers, only of f8"
    else:
        return WITH_TEXT[kind]
    raise ValueError(f"{reason}; {OTHERWISE}")


def side(image_shape: Sequence[int]) -> int | list[int]:
    """The sample_size of diffusers: one side of a square image, or height and width."""
    _, height, width = image_shape
    return height if height == width else [height, width]


def part_words(parts: dict[str, Config]) -> Config:
    """The entries of scheduler_config.json for parts, the resolved configuration of each key of WORDS."""
    words: Config = {}
    for group, leaf in parts.items():
        known = {target.rpartition(".")[2]: found for target, found in WORDS[group].items()}
        name = leaf["_target_"].rpartition(".")[2]
        if leaf["_target_"] not in WORDS[group]:
            check.fail(group, name, f"{' or '.join(known)} to be exported for diffusers ({OTHERWISE})")
        names = NAMES.get(name, {})
        leaf = {field: value for field, value in leaf.items() if value != ONLY.get(field, object())}
        words |= part_words({group: leaf.pop("of")}) if "of" in leaf else {}
        for field in leaf.keys() - {"_target_", "_partial_"} - FIELDS.get(group, set()) - names.keys():
            check.fail(f"{group}.{field}", leaf[field], f"left out to be exported for diffusers ({OTHERWISE})")
        words |= known[name] | {theirs: leaf[ours] for ours, theirs in names.items() if ours in leaf}
    return words


def scheduler_config(words: Config, schedule: NoiseSchedule, steps: int, times: list[int]) -> Config:
    """The config of the scheduler that samples as our model does.

    words: see `part_words`. steps, times: of our sampler.
    """
    if "set_alpha_to_one" in words and "_class_name" not in words:
        check.fail("timestep_spacing", "ending_at_1", f"one that ends at 0 for sampler=ancestral ({OTHERWISE})")
    if words.pop(CLIPPED_EPS, "_class_name" in words) and (words["clip_sample"] or words.get("thresholding")):
        check.fail("sampler.clipped_eps", True, f"false with clipping, as in DDIMScheduler, or clip=none ({OTHERWISE})")
    _check_times(steps, times, schedule, words)
    fixed = {"thresholding": False, "rescale_betas_zero_snr": False}
    about = {"_class_name": "DDPMScheduler", "num_train_timesteps": schedule.T}
    return {**about, **schedule_words(schedule.alpha_bar), **fixed, **words}


def schedule_words(alpha_bar: Tensor) -> Config:
    """The name of the schedule if diffusers has one with these betas, else the betas themselves."""
    T = len(alpha_bar) - 1
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    start, end = (float(f"{beta:.10g}") for beta in (betas[0], betas[-1]))  # rounds 0.0200...01 to 0.02
    time = torch.arange(T + 1, dtype=torch.float64) / T
    curve = ((time + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    known = {
        "linear": torch.linspace(start, end, T, dtype=torch.float64),
        "scaled_linear": torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2,
        "squaredcos_cap_v2": (1 - curve[1:] / curve[:-1]).clamp(max=0.999),
    }
    for name, theirs in known.items():
        if torch.allclose(betas, theirs, rtol=1e-8, atol=0):
            return {"beta_schedule": name, **({} if "cos" in name else {"beta_start": start, "beta_end": end})}
    return {"trained_betas": betas.tolist()}


NOISY = {"fixed_large": "large", "learned_range": "learned_range"}


def _check_times(steps: int, times: list[int], schedule: NoiseSchedule, words: Config) -> None:
    T, by_ddim, spacing = schedule.T, "_class_name" in words, words["timestep_spacing"]
    theirs = {
        "trailing": trailing,
        "linspace": linspace,
        "leading": partial(leading, offset=words.get("steps_offset", 0)),
    }
    of = theirs[spacing] if words.get("set_alpha_to_one", True) else partial(ending_at_1, of=theirs[spacing])
    whole = spacing == "leading" or (T % steps == 0 and spacing == "trailing") or steps == T
    if times != of(T, steps, schedule) or (by_ddim and not whole):  # DDIMScheduler ends a step at t - T // steps
        even = f"null or a divisor of {T}, with timestep_spacing=uniform, to be exported for diffusers ({OTHERWISE})"
        check.fail("sampler.steps", steps, even)
    variance = words.get("variance_type", "fixed_small")
    if variance != "fixed_small" and times[-2] != 1:  # diffusers adds noise in a step from above 1 to 0
        check.fail(
            "sampler.steps", steps, f"null to be exported for diffusers with variance={NOISY[variance]}, or use small"
        )


def _write(path: Path, config: Config) -> None:
    path.write_text(json.dumps(config, indent=2) + "\n")

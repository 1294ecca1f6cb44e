"""A wrong value of any field of any option: one line that names this field as the user types it, before any work.

Each field gets values of a wrong type, and a number or word out of range. Of fields that several options share by the
same constructor, one is tried.
"""

import inspect
from functools import cache, partial

import pytest
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from small_runs import ROOT, SMALL, composed
from torch import nn

from ddpm.commands import evaluate, export, sample, train
from ddpm.config import build
from ddpm.config.guidance import order_wrappers
from ddpm.config.wiring import complete, instantiate, name_source
from ddpm.diffusion.conditions.base import ClassLabel
from ddpm.diffusion.degradations.fade import Fade
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.noises.base import White
from ddpm.diffusion.schedules.base import Steps
from ddpm.diffusion.schedules.betas import linear
from ddpm.evaluation.sweeps.base import build_sweep

CONF = ROOT / "conf"
LEFT_OUT = ("hydra", "experiment", "debug", "anomalies", "text")
"""Folders of conf/ that are no parts, or parts of metric=anomaly and cond=caption."""
GIVEN = {
    **{"num_classes": 10, "num_words": 10, "num_tokens": 3, "num_labels": 4, "vocabulary": ["a"], "size": 32},
    **{
        "root": "data",
        "path": "data",
        "first_stage": "data",
        "name": "mine",
        "base": "data",
        "small": "data",
        "_target_": "torch.nn.Flatten",
    },
}
"""Values of fields that another part or the user sets."""
OTHERS = {
    "loss=first_stage": ("schedule.num_timesteps=1",),
    "loss=vae": ("schedule.num_timesteps=1",),
    "cond=semantic": ("data.label_images=data", "data.num_labels=4"),
    "cond=caption": ("text=words",),
    "text_": ("text=words",),
    "ldm_t": ("text=words",),
}
FREE = {
    "name weights sha256 root path small base guide classifier first_stage tokenizer": "names and files, found later",
    "within": "a folder, found later",
    "entity project group notes tags version": "texts for a logger",
    "negative": "a text",
    "image_column label_column caption_column": "columns, of which the file decides",
    "layer": "a metric that lacks its layer is skipped",
    "mask": "also a file",
    "label_images labels": "files, or words that the source knows",
    "words names": "texts",
    "best license": "a logged value, an identifier",
    "fitted": "set when training starts",
}
"""Fields of which any text is right before files are read, with the reason."""
NEGATIVE = (
    "start",
    "end",
    "bounds",
    "colour",
    "value",
    "rate",
    "centers",
    "mean",
    "slant_bounds",
    "std",
    "adversary_weight",
)
LATER = ("times", "steps", "t", "devices")
"""Fields whose range depends on the model or the machine."""

LATER_IN = ("options.", "sampler_error.samplers.")
"""Samplers that are built with the model."""


def base(group):
    return (
        "evaluate"
        if group in ("metric", "features")
        else next(n for n in ("train", "evaluate", "sample") if f"- {group}:" in (CONF / f"{n}.yaml").read_text())
    )


@cache
def file(group, option):
    return OmegaConf.load(CONF / group / f"{option}.yaml")


def option(group, name):
    """What Hydra composes of one option; faster, for 200 of them."""
    own, parts = file(group, name).copy(), []
    for each in own.pop("defaults", []):
        if each != "_self_" and isinstance(each, str):
            parts.append(option(group, each))
        elif each != "_self_":
            ((key, chosen),) = each.items()
            other, _, place = key.strip("/").partition("@")
            parts.append(OmegaConf.create())
            OmegaConf.update(parts[-1], place, option(other, chosen), force_add=True)
    return OmegaConf.merge(*parts, own)


def fill(part):
    for key in part:
        node = part._get_node(key)
        if node._is_missing() or (key in GIVEN and node._is_none() and key != "name"):
            part[key] = GIVEN[key]
        elif isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            fill(node)
    return part


def fields(part, name=""):
    """Each field that holds a value: its path, its value, and the constructor that gets it."""
    for key, value in part.items_ex(resolve=False):
        node = part._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from fields(value, f"{name}{key}.")
        elif key[0] != "_" and not node._is_interpolation():
            yield f"{name}{key}", OmegaConf.to_container(value) if OmegaConf.is_config(value) else value, part


def wrong_values(field, value):
    """Values of a wrong type, and one out of range, where the range is known."""
    name = field.rpartition(".")[2]
    if name in ("fitted", "version") or field == "name":
        return
    if name != "val_check_interval":  # also a duration
        yield {"a": 1}
    if isinstance(value, str):
        yield 7
        if not any(name in names.split() for names in FREE) and not field.startswith(LATER_IN):
            yield "perhaps"
        return
    if not any(name in names.split() for names in FREE):
        yield "perhaps"
    many = isinstance(value, list)
    if isinstance(value, int | float | list) and not isinstance(value, bool):
        yield [float("nan")] if many else float("nan")
        if (
            name not in NEGATIVE + LATER
            and not field.startswith(LATER_IN)
            and not (many and isinstance(value[0] if value else 0, str))
        ):
            yield [-1] if many else -1


SCHEDULE = linear(1000, 1e-4, 0.02, rescale=True)
PROCESS = GaussianDiffusion(SCHEDULE, White())
STAND_INS = {
    **{"schedule": SCHEDULE, "noise": White(), "process": PROCESS, "network": nn.Identity(), "denoiser": min},
    **{"parameters": [nn.Parameter(torch.zeros(1))], "adversary": nn.Identity(), "guide": min, "classifier": min},
    **{
        "condition": ClassLabel(10, 0.1),
        "objective": None,
        "uses_guidance_gradient": True,
        "denoiser_takes_label": False,
        "perceptual": None,
    },
}


def build_part(config, group):
    """What a command builds of this group before it reads files, with stand-ins for the other parts."""
    part = config[group]
    if group == "trainer":
        return build.trainer(config)
    if group == "sweep":
        return build_sweep(config)
    if group == "data":
        return build.data(config)
    if group in ("callbacks", "logger", "metric"):
        return [part(labels={}) if isinstance(part, partial) else part for part in build.build_parts(part, group)]
    if group in ("time_sampler", "weight", "error"):
        part, group = config.loss, "loss"
    if group == "timestep_spacing":
        return complete(instantiate(config.sampler, "sampler"), "sampler", process=PROCESS).times(1000)
    if group == "guidance":
        order_wrappers(part.order, dict.fromkeys(("guidance", "clip")))
        part = OmegaConf.masked_copy(
            part, [name for name in part if name not in ("order", "weights", "guide", "classifier")]
        )
    if group == "codec":
        part = OmegaConf.masked_copy(part, [name for name in part if name not in ("first_stage", "weights")])
    with torch.device("meta" if group in ("model", "adversary") and "oracle" not in part._target_ else "cpu"):
        made = instantiate(part, group)
    taken = inspect.signature(made).parameters if isinstance(made, partial) else ()
    needed = {name: each for name, each in STAND_INS.items() if name in taken}
    if "process" in needed and config.schedule.num_timesteps == 1:
        needed["process"] = GaussianDiffusion(linear(1, 0.5, 0.5, rescale=False), White())
    if "Gaussian" not in (text := str(made)) and group == "process" and "schedule" in needed:
        needed["schedule"] = SCHEDULE if "inomial" in text else Steps(1000)
    if group == "codec":
        needed["network"] = nn.Identity()
        needed["network"].z_channels, needed["network"].num_moments = 4, 8
    if group == "sampler" and "cold" in part._target_:
        needed["process"] = Fade(schedule=Steps(1000), colour=-1, symmetry_noise=0.0, fitted=None)
    made = complete(made, group, **needed) if needed else made
    return made.times(1000) if group == "sampler" else made


@pytest.mark.parametrize(
    "group", sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in LEFT_OUT)
)
def test_a_wrong_value_is_refused_in_one_line_that_names_its_field(group, tmp_path):
    wrong, seen = [], set()
    for path in sorted({*(CONF / group).glob("[!_]*.yaml")} - {CONF / "task" / "generate.yaml"}):
        words = next(
            (
                words
                for start, words in OTHERS.items()
                if f"{group}={path.stem}".startswith(start) or path.stem.startswith(start)
            ),
            (),
        )
        config = composed(base(group), *words).copy()
        with open_dict(config):
            config[group] = fill(option(group, path.stem))
            config.run_dir = str(tmp_path)
            config.update(dict.fromkeys({"callbacks", "logger"} - {group}))
        for field, value, part in list(fields(config[group])):
            name = field.rpartition(".")[2]
            same = group, str(part.get("_target_")), name if "_target_" in part else field
            if (
                same in seen
                or (group == "callbacks" and value is None)
                or (
                    name in ("order", "weights", "guide", "classifier", "first_stage")
                    and group in ("guidance", "codec")
                    and name != "order"
                )
            ):
                continue
            seen.add(same)
            for bad in wrong_values(field, value):
                part[name] = bad
                try:
                    build_part(config, group)
                    wrong.append(f"{path.stem}: {field}={bad} is accepted")
                except Exception as error:
                    message = name_source(config, str(error))
                    if (
                        not isinstance(error, ValueError)
                        or "\n" in message
                        or not message.startswith(f"{group}.{field}")
                    ):
                        wrong.append(f"{path.stem}: {field}={bad}: {type(error).__name__}: {message[:160]}")
            part[name] = value
    assert not wrong, "\n".join(wrong)


class Accepted(Exception):
    pass


def accept(*_, **__):
    raise Accepted


def own_fields(program):
    """The fields of a program itself: path and value."""
    own = OmegaConf.load(CONF / f"{program}.yaml")
    parts = [
        OmegaConf.masked_copy(
            own, {*own} - {"defaults", "hydra", "ema", "run_dir", "out", "save_statistics", "images", "reference"}
        )
    ]
    parts += (
        [OmegaConf.masked_copy(file("task", "generate"), {"num_samples", "format", "size", "gif"})]
        if program == "sample"
        else []
    )
    return {field: value for part in parts for field, value, _ in fields(part)}


@pytest.mark.parametrize(
    ("program", "field"), [(p, f) for p in ("train", "sample", "evaluate", "export") for f in own_fields(p)]
)
def test_a_wrong_value_of_a_field_of_a_program_is_refused(program, field, run_of, monkeypatch, tmp_path):
    ckpt = run_of() / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(Trainer, "fit", accept)
    monkeypatch.setattr(Trainer, "predict", accept)
    monkeypatch.setattr(export, "write_folder", accept)
    value = own_fields(program)[field]
    words = {"train": SMALL, "export": ("format=safetensors",), "evaluate": ("features=mnist",)}
    words = words.get(program, ()) + (
        ("metric=fid", "features=mnist") if field.startswith(("evaluate.", "features")) and program == "train" else ()
    )
    config = composed(program, *words, *(() if program == "train" else (f"ckpt={ckpt}",)))
    with open_dict(config := config.copy()):
        config.run_dir = str(tmp_path / "run")
    run = {
        "train": train.run_train,
        "sample": sample.run_sample,
        "evaluate": evaluate.run_evaluate,
        "export": export.run_export,
    }
    wrong = []
    for bad in wrong_values(field, value):
        changed = config.copy()
        OmegaConf.update(changed, field, bad, merge=False, force_add=True)
        try:
            run[program](changed)
            wrong.append(f"{field}={bad} is accepted")
        except Accepted:
            wrong.append(f"{field}={bad} is accepted")
        except Exception as error:
            message = name_source(config, str(error))
            if not isinstance(error, ValueError) or "\n" in message or not message.startswith(field):
                wrong.append(f"{field}={bad}: {type(error).__name__}: {message[:160]}")
    assert not wrong, "\n".join(wrong)

"""Classes and their guidance in a folder of diffusers, whose own pipelines of a UNet2DModel take none.

The folder holds the pipeline of templates/pipeline.py, and model_index.json its arguments.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from ddpm.base import check
from ddpm.base.untrusted import json_file
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.diffusion.conditions.base import ClassLabel
from ddpm.interop.weights import Weights

Config = dict[str, Any]

PIPELINE = Path(__file__).parent / "templates" / "pipeline.py"
CLASS_NAME = [PIPELINE.stem, "ClassConditionalPipeline"]
CLASSIFIER_FREE = {"_target_": "ddpm.diffusion.guidance.difference.ClassifierFree", "_partial_": True}
NO_INTERVAL = {"interval": None}
ORDER = ["guidance", "clip"]
TABLE = "class_embedding.weight"
OTHERWISE = "format=safetensors exports everything"


def guidance_arguments(guidance: Config, more: Config) -> Config:
    """Those of a pipeline; empty without guidance. guidance: resolved configuration, of `ClassifierFree` or none. more:
    fields with the only value that the pipeline has. Raises ValueError for others."""
    if guidance["_target_"] == UNGUIDED["_target_"]:
        return {}
    for field, value in {"rescale": 0.0, "order": ORDER, **more}.items():
        if guidance[field] != value:
            needed = "null" if value is None else value
            check.fail(f"guidance.{field}", guidance[field], f"{needed} for diffusers; {OTHERWISE}")
    interval = guidance["interval"] and [*map(float, guidance["interval"])]
    return {"guidance_scale": float(guidance["scale"]), "guidance_interval": interval}


def class_arguments(condition: ClassLabel, guidance: Config) -> Config:
    """The arguments of the pipeline of classes. guidance: see `guidance_arguments`."""
    null = {"null_class": condition.num_classes if condition.dropout else None}
    return null | guidance_arguments(guidance, {})


def save_class_pipeline(folder: Path) -> None:
    shutil.copyfile(PIPELINE, folder / PIPELINE.name)


def with_null_class(weights: Weights) -> Weights:
    """Weights with one more class, which adds nothing to the time embedding: a table `[K + 1, channels]`."""
    return weights | {TABLE: functional.pad(weights[TABLE], (0, 0, 0, 1))}


def without_null_class(weights: Weights, arguments: Config) -> Weights:
    """The inverse. arguments: see `read_class_arguments`. Raises ValueError for a null class that adds something."""
    null = arguments.get("null_class")
    if null is None:
        return weights
    table = weights.get(TABLE, torch.zeros(0, 1))
    if null != len(table) - 1 or table[-1].any():
        check.fail("null_class", null, "the last class, whose embedding is zero")
    return weights | {TABLE: table[:-1]}


def read_class_arguments(folder: Path) -> Config:
    """The arguments of the pipeline of a folder; empty if it has another one."""
    file = folder / "model_index.json"
    index = json_file(file) if file.is_file() else {}
    if not isinstance(index, dict) or index.get("_class_name") != CLASS_NAME:
        return {}
    return {name: index.get(name) for name in ("null_class", "guidance_scale", "guidance_interval")}


def guidance_of(arguments: Config) -> Config | None:
    """The configuration of the guidance; None without."""
    scale = arguments.get("guidance_scale")
    if scale is None or scale == 1:
        return None
    return {**CLASSIFIER_FREE, "scale": scale, "interval": arguments["guidance_interval"], "order": ORDER}

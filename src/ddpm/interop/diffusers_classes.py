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
ORDER = ["guidance", "clip"]
TABLE = "class_embedding.weight"


def class_arguments(condition: ClassLabel, guidance: Config) -> Config:
    """The arguments of the pipeline. guidance: its resolved configuration. Raises ValueError for other guidance."""
    found: Config = {"null_class": condition.num_classes if condition.dropout else None}
    if guidance["_target_"] == UNGUIDED["_target_"]:
        return found
    for field, value in {"_target_": CLASSIFIER_FREE["_target_"], "rescale": 0.0, "order": ORDER}.items():
        if guidance[field] != value:
            name = "guidance" if field == "_target_" else f"guidance.{field}"
            check.fail(name, guidance[field], f"{value} for diffusers; format=safetensors exports everything")
    interval = guidance["interval"] and [*map(float, guidance["interval"])]
    return found | {"guidance_scale": float(guidance["scale"]), "guidance_interval": interval}


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

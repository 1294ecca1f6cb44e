"""The exported folder of a trained model: config.json and model.safetensors. It contains data only, no code."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import ddpm
from ddpm.base.environment import commit_name
from ddpm.base.untrusted import json_file
from ddpm.checkpoint.upgrade import upgrade_weights
from ddpm.interop.weights import load_metadata, load_tensors, save_tensors

CONFIG, TENSORS, HASH, FIRST_STAGE = "config.json", "model.safetensors", "tensors_sha256", "first_stage"
VERSION = 1


@dataclass(frozen=True)
class Exported:
    """config: plain containers, from which the model can be built. weights: name of the weights, such as `ema_0.9999`.
    tensors: the entries of the model's state dict for these weights. damaged: whether the hash of their file
    differs. step: of the training, if it is known. license: of the weights; empty if none is stated."""

    config: dict[str, Any]
    weights: str
    tensors: dict[str, Tensor]
    damaged: bool = False
    step: int | None = None
    license: str = ""

    def metadata(self) -> dict[str, str]:
        """What a file of tensors says of itself, as safetensors allows: texts by name."""
        content = json.dumps(self.config, sort_keys=True).encode()
        about = {
            "step": self.step,
            "weights": self.weights,
            "config_sha256": hashlib.sha256(content).hexdigest(),
            "license": self.license or None,
            "ddpm": ddpm.__version__,
            "commit": commit_name(),
        }
        return {name: str(value) for name, value in about.items() if value is not None}


def is_exported(folder: Path) -> bool:
    """Whether the folder's config.json has the version field of this project."""
    return (folder / CONFIG).is_file() and "ddpm_format_version" in _read_about(folder / CONFIG)


def save_exported_folder(folder: Path, exported: Exported) -> None:
    """Write to an existing folder."""
    about = {"ddpm_format_version": VERSION, "weights": exported.weights, "config": exported.config}
    save_tensors(exported.tensors, folder / TENSORS, exported.metadata())
    about[HASH] = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")


def stated_in(folder: Path) -> dict[str, Any]:
    """Step and license in the metadata of an exported folder, as fields of `Exported`; empty for anything else."""
    if not is_exported(folder):
        return {}
    stated = load_metadata(folder / TENSORS)
    step = stated.get("step", "")
    numbers = {"step": int(step)} if re.fullmatch(r"[0-9]{1,18}", step) else {}
    return numbers | ({"license": stated["license"]} if "license" in stated else {})


def save_first_stage(folder: Path, exported: Exported) -> None:
    """The first stage of a model of latents, in a folder in the model's."""
    (folder / FIRST_STAGE).mkdir()
    save_exported_folder(folder / FIRST_STAGE, exported)


def with_own_first_stage(exported: Exported, of: str = FIRST_STAGE) -> Exported:
    """The model with its first stage at `of`."""
    return replace(exported, config={**exported.config, "codec": {**exported.config["codec"], "first_stage": of}})


def load_exported_folder(folder: Path) -> Exported:
    about = _read_about(folder / CONFIG)
    if about["ddpm_format_version"] != VERSION:
        found = about["ddpm_format_version"]
        raise ValueError(f"{folder} must have ddpm_format_version {VERSION}, got {found!r}; export the model again")
    for field, kind in (("weights", str), ("config", dict)):
        if not isinstance(about.get(field), kind):
            raise ValueError(f"{folder / CONFIG} is damaged: it has no {field!r}; export the model again")
    tensors = load_tensors(folder / TENSORS, "; export the model again")
    sha256 = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    is_damaged = about.get(HASH, sha256) != sha256
    exported = Exported(about["config"], about["weights"], upgrade_weights(tensors), is_damaged)
    codec = about["config"].get("codec")
    if isinstance(codec, dict) and codec.get("first_stage") == FIRST_STAGE:
        return with_own_first_stage(exported, str(folder / FIRST_STAGE))
    return exported


def _read_about(path: Path) -> dict[str, Any]:
    about = json_file(path)
    return about if isinstance(about, dict) else {}

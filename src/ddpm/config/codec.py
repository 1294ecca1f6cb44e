"""Build the codec, with the first stage that a latent codec takes from another checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from torch import nn

from ddpm.base import check
from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint.stored_config import FITTED, Fitted
from ddpm.config.checkpoint_path import checkpoint_path
from ddpm.config.wiring import complete, instantiate
from ddpm.diffusion.conditions.base import Condition
from ddpm.interop.hub import is_hub_name
from ddpm.model.codec import Codec
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.model.latent_codec import HASH, LatentCodec

Load = Callable[..., DiffusionModel]
"""Loads the model of a path, or with FIRST_STAGE as a second argument the first stage in it."""
FIRST_STAGE = "first stage"
FIELD = "codec.first_stage"
PUBLISHED = "published"
"""The codec.scale that a published first stage was used with."""
READ_HERE = ("first_stage", "weights")
"""Fields of a latent codec that are used here and not passed to its constructor."""


def build_codec(config: DictConfig, fitted: Fitted, load: Load) -> Codec:
    leaf = config.codec
    if "first_stage" not in leaf.keys():  # noqa: SIM118  `in` overlooks a missing value
        return instantiate(leaf, "codec")
    known = fitted.get("codec", {})
    network = first_stage(leaf, load, known.get(HASH))
    if network.in_channels != config.data.channels:
        raise ValueError(
            f"codec.first_stage={leaf.first_stage} encodes images of {network.in_channels} channels, but "
            f"data.channels={config.data.channels}"
        )
    part = instantiate(OmegaConf.masked_copy(leaf, [name for name in leaf if name not in READ_HERE]), "codec")
    codec = complete(part, "codec", network=network, fitted=known)
    size = check.height_width("data.size", config.data.size)
    codec.latent_shape((config.data.channels, *size))  # only to raise its errors
    return codec


def first_stage(leaf: DictConfig, load: Load, sha256: str | None = None) -> nn.Module:
    """The network that `codec.first_stage` names. sha256: of its weights, if the model was trained with them.

    Raises ValueError if there is none, if it is another model, or if its weights are others.
    """
    if OmegaConf.is_missing(leaf, "first_stage"):
        raise ValueError(
            "codec.first_stage must be given: the checkpoint of a first stage, as made by "
            "python train.py experiment=first_stage_mnist"
        )
    path = checkpoint_path(str(leaf.first_stage), FIELD)
    if not path.exists():
        known = f"; the model was trained with the one of sha256 {sha256}" if sha256 else ""
        raise ValueError(f"codec.first_stage={path} does not exist{known}; codec.first_stage=FILE names another place")
    model = load(path, FIRST_STAGE, FIELD)
    complete(model.use_for_prediction, "codec", weights=leaf.weights, seed=0)
    network = model.weights(model.predict_weights)
    if not hasattr(network, "moments"):
        raise ValueError(
            f"codec.first_stage={path} is a {type(network).__name__}, not a first stage; train one, for example with "
            "experiment=first_stage_mnist"
        )
    if sha256 not in (None, found := weights_hash(network)):
        raise ValueError(
            f"codec.first_stage={path} has weights of sha256 {found}, but the model was trained with {sha256}; "
            "codec.first_stage=FILE names the file that has them"
        )
    return network


def published_scale(path: Path, load: Load) -> float:
    """The scale of the latents that the files of a published first stage state."""
    scale = load(path, FIRST_STAGE).config[FITTED].get("codec", {}).get("scale")
    if scale is None:
        check.fail("codec.scale", PUBLISHED, f"null or a number, because {path} states no scale of its latents")
    return scale


def refuse_latents(config: DictConfig, codec: Codec, condition: Condition) -> None:
    """Raise ValueError if the training images cannot be replaced by their latents."""
    if not config.data.get("latents"):
        return
    if not isinstance(codec, LatentCodec):
        check.fail("data.latents", config.data.latents, "null without codec=latent, which encodes images")
    if condition.reads_images:
        name = config.cond._target_.rpartition(".")[2]
        check.fail("data.latents", config.data.latents, f"null with cond={name}, which is computed from the images")


def with_latent_shape(config: DictConfig, load: Load) -> DictConfig:
    """The configuration with the latents' channels and size in its networks, where it refers to those of the data."""
    if "first_stage" not in config.codec.keys():  # noqa: SIM118
        return config
    config = config.copy()
    network: Any = first_stage(config.codec, load)
    if config.codec.scale == PUBLISHED:
        config.codec.scale = published_scale(checkpoint_path(str(config.codec.first_stage), FIELD), load)
    if not is_hub_name(str(config.codec.first_stage)):
        path = checkpoint_path(str(config.codec.first_stage), FIELD)  # no newer file is taken later
        config.codec.first_stage = str(path.absolute())
    height, width = (side // network.factor for side in check.height_width("data.size", config.data.size))
    values = {"${data.channels}": network.z_channels, "${data.size}": height if height == width else [height, width]}
    changed = OmegaConf.create(OmegaConf.to_container(config, resolve=False), flags={"allow_objects": True})
    with open_dict(changed):
        for group in ("model", "adversary"):
            replace_references(changed.get(group) or OmegaConf.create(), values)
    return changed


def replace_references(node: DictConfig | ListConfig, values: dict[str, Any]) -> None:
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key):
            value = OmegaConf.to_container(node, resolve=False)[key]
            if value in values:
                node[key] = values[value]
        elif OmegaConf.is_config(node[key]):
            replace_references(node[key], values)

"""Files of diffusers: config.json with its settings and their checks, and the weights beside it."""

from pathlib import Path
from typing import Any, NoReturn

from ddpm.base import check
from ddpm.base.untrusted import json_file
from ddpm.interop.diffusers_names import to_new_names
from ddpm.interop.weights import Weights, load_tensors, read_file, state_dict_of

Config = dict[str, Any]
WEIGHTS = "diffusion_pytorch_model"
NUMBERS = ("in_channels", "out_channels", "layers_per_block", "norm_num_groups", "latent_channels", "num_vq_embeddings")


def read_config(path: Path) -> Config:
    if not path.is_file():
        check.fail("folder", str(path.parent), f"a folder of a model of diffusers, with {path.name}")
    config = json_file(path)
    if not isinstance(config, dict):
        check.fail(str(path), type(config).__name__, "a JSON object of settings")
    return config


def read_weights(folder: Path) -> Weights:
    """The tensors, of one file of safetensors or of several with an index, or out of the file of torch.save if there is
    no other. Nothing in it is run."""
    path = folder / f"{WEIGHTS}.safetensors"
    pickled, index = path.with_suffix(".bin"), folder / f"{path.name}.index.json"
    if index.is_file():
        return to_new_names({key: weight for part in parts(index) for key, weight in load_tensors(part).items()})
    if not path.is_file() and pickled.exists():
        return to_new_names(state_dict_of(read_file(pickled), pickled))
    if not path.is_file() and (others := sorted(folder.glob(f"{WEIGHTS}*"))):  # as of variant="fp16"
        raise ValueError(f"{folder} has no {path.name}, but {others[0].name}: rename or copy it")
    return to_new_names(load_tensors(path))


def parts(index: Path) -> list[Path]:
    """The files of an index of safetensors, which lie beside it."""
    about = json_file(index)
    places = about.get("weight_map") if isinstance(about, dict) else None
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        check.fail(str(index), names[:3], "an index with a weight_map to names of files in this folder")
    return [index.parent / name for name in sorted({*names})]


def followed(config: Config, defaults: Config, ours: Config) -> Config:
    """The config with the defaults of its class. ours: the only values that our network supports."""
    check_types(config)
    for field in config.keys() - defaults.keys():
        if not field.startswith("_") and config[field] is not None:
            refuse(field, config[field], "a field that this version does not know")
    config = defaults | config
    for field, value in ours.items():
        if config.get(field, value) != value:
            refuse(field, config[field], f"our network has {value!r}")
    return config


def levels(config: Config, plain: str, attending: str) -> Config:
    """The arguments of our networks that say what is at which level. plain, attending: names of blocks going down."""
    if not config["block_out_channels"] or min(config["block_out_channels"]) < 1:
        refuse("block_out_channels", config["block_out_channels"], "one width of at least 1 per level")
    widths, down = list(config["block_out_channels"]), list(config["down_block_types"])
    if not {*down} <= {plain, attending} or len(down) != len(widths):
        refuse("down_block_types", down, f"our network has {plain} or {attending} at {len(widths)} levels")
    if list(config["up_block_types"]) != (up := mirrored(down)):
        refuse("up_block_types", config["up_block_types"], f"our network mirrors the way down: {up}")
    if any(width % widths[0] for width in widths):
        refuse("block_out_channels", widths, "our widths are multiples of the first")
    return {
        "base_channels": widths[0],
        "channel_mults": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attention_levels": [level for level, kind in enumerate(down) if kind == attending],
        "num_groups": config["norm_num_groups"],
    }


def block_types(num_levels: int, attention_levels: list[int], plain: str, attending: str) -> Config:
    """The inverse of `levels` for the names of blocks."""
    down = [attending if level in attention_levels else plain for level in range(num_levels)]
    return {"down_block_types": down, "up_block_types": mirrored(down)}


def mirrored(down: list[str]) -> list[str]:
    return [kind.replace("Down", "Up").replace("Encoder", "Decoder") for kind in reversed(down)]


def check_types(config: Config) -> None:
    """Raise ValueError for values of another type than diffusers writes."""
    for field in NUMBERS:
        if type(config.get(field, 1)) is not int:
            refuse(field, config[field], "a number is needed")
    for field, kind in (("block_out_channels", int), ("down_block_types", str), ("up_block_types", str)):
        value = config.get(field, [])
        if not isinstance(value, list | tuple) or not all(type(each) is kind for each in value):
            refuse(field, value, f"a list is needed, of {'numbers' if kind is int else 'names'}")
    for field in ("attention_head_dim", "cross_attention_dim"):
        if type(config.get(field)) not in (int, type(None)):
            refuse(field, config[field], "a number or null is needed")


def sides(config: Config) -> list[int] | None:
    """Height and width of the inputs; None: unknown."""
    size = config.get("sample_size")
    return None if size is None else [*check.height_width("size", size)]


def refuse(field: str, value: Any, reason: str) -> NoReturn:
    raise ValueError(f"cannot load a diffusers config with {field} = {value!r}: {reason}")

"""What a path of weights is, by its content. The only place that decides which reader opens it."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from ddpm.base.untrusted import json_file
from ddpm.interop.exported_folder import is_exported

OWN, EXPORTED, OPENAI, DDGAN = "checkpoint", "exported folder", "OpenAI", "DDGAN"
UNET, PIPELINE, STAGE = "UNet2DModel", "latent diffusion pipeline", "diffusers first stage"
COMPVIS, COMPVIS_STAGE = "CompVis", "CompVis first stage"

IN_FILES = {
    OWN: [b"state_dict", b"_target_"],
    DDGAN: [b"all_modules.0.weight"],
    COMPVIS: [b"model.diffusion_model.input_blocks.0.0.weight"],
    COMPVIS_STAGE: [b"encoder.conv_in.weight", b"quant_conv.weight"],
    OPENAI: [b"input_blocks.0.0.weight"],
}
"""Names that only files of one program have. The first match counts."""
NUM_BYTES = 2**24
"""Names are looked for in that many bytes of a pickle; tensors are not in it."""
STAGE_FOLDERS = ("vae", "vqvae")
"""Where a pipeline of diffusers has its first stage."""
CLASSES = {"UNet2DModel": UNET, "AutoencoderKL": STAGE, "VQModel": STAGE}


class NoModel(ValueError):
    """A folder holds no model that can be read."""


def recognise(path: Path) -> str:
    """One of the kinds above. A file of no known kind goes to the reader of our checkpoints, which says what it is."""
    if path.is_dir():
        return kind_of_folder(path)
    pickled = pickle_in(path)
    found = (kind for kind, names in IN_FILES.items() if all(name in pickled for name in names))
    return next(found, OWN)


def kind_of_folder(folder: Path) -> str:
    if is_exported(folder):
        return EXPORTED
    if (folder / "unet").is_dir():
        return PIPELINE if any((folder / name).is_dir() for name in STAGE_FOLDERS) else UNET
    settings = [folder / name for name in ("config.json", "model_index.json")]
    if not any(path.is_file() for path in settings):
        raise NoModel(
            f"ckpt={folder} is a folder without a model: a run has checkpoints/ in it, an exported folder and one of "
            "diffusers have config.json"
        )
    about = json_of(settings[0]) or json_of(settings[1])
    name = str(about.get("_class_name", "UNet2DModel"))
    if name not in CLASSES:
        raise NoModel(
            f"ckpt={folder} is a folder of {name[:100]!r}, which cannot be loaded; {', '.join(CLASSES)} and pipelines "
            "of them can"
        )
    return CLASSES[name]


def json_of(path: Path) -> dict[str, Any]:
    """{} if there is none."""
    about = json_file(path) if path.is_file() else {}
    return about if isinstance(about, dict) else {}


def pickle_in(path: Path) -> bytes:
    """The beginning of the pickle in a file of torch.save, as bytes; empty if there is none."""
    try:
        if not path.is_file() or not is_zipfile(path):
            return b""
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return archive.open(names[0]).read(NUM_BYTES)
    except Exception:  # whatever a damaged file provokes; its reader names it
        return b""

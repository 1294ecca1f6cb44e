"""The setting that a mistaken name means: by the last part of its path, by names of other programs, by spelling."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from ddpm.base import check

OTHER_NAMES = {
    "num_timesteps": ("T", "timesteps", "steps", "num_train_timesteps", "diffusion_steps", "num_diffusion_timesteps"),
    "lr": ("learning_rate", "base_lr"),
    "batch_size": ("bs", "batch", "train_batch_size"),
    "max_steps": ("epochs", "num_epochs", "iterations", "train_steps", "train_num_steps", "max_train_steps"),
    "steps": ("num_steps", "sampling_steps", "num_inference_steps", "sampling_timesteps", "timestep_respacing"),
    "devices": ("gpus", "num_gpus", "ngpus"),
    "precision": ("fp16", "bf16", "amp", "mixed_precision"),
    "size": ("image_size", "img_size", "resolution"),
    "root": ("data_dir", "folder", "train_data_dir", "path", "dir"),
    "accelerator": ("device",),
    "base_channels": ("dim", "channels", "model_channels", "num_channels"),
    "decay": ("ema_decay", "ema_rate"),
    "gradient_clip_val": ("grad_clip", "max_grad_norm"),
    "accumulate_grad_batches": ("gradient_accumulation_steps", "gradient_accumulate_every", "accumulation"),
    "num_samples": ("n", "num_images"),
    "ckpt": ("checkpoint", "model_path"),
    "run_dir": ("output_dir", "out_dir", "save_dir"),
}
"""Last part of a field's path -> its names in other programs."""
OTHER_OPTIONS = {"ddpm": "ancestral", "cfg": "classifier_free", "gpu": "default", "mse": "simple", "noise": "eps"}
"""Name of an option in other programs -> its name here."""


def suggestion(wrong: str, known: Sequence[str], otherwise: str = "") -> str:
    """The text "; did you mean 'x'?", or "" if nothing is similar. known: the first of equally good ones is named.

    otherwise: the text if no known key has this name; "": one with similar spelling is named.
    """
    meant = nearest(wrong, known)
    return f"; did you mean {meant!r}?" if meant else otherwise or check.suggestion(wrong, known)


def nearest(wrong: str, known: Sequence[str]) -> str | None:
    """The known key with the last part of `wrong`, or with the name here of what other programs call so."""
    group, _, last = wrong.rpartition(".")
    here = next((name for name, others in OTHER_NAMES.items() if last.lower() in map(str.lower, others)), None)
    names = [*filter(None, (last, here, last.lower()))]

    def distance(key: str) -> tuple[bool, int, bool, int]:
        parent, _, name = key.rpartition(".")
        return key.split(".")[0] != group.split(".")[0], names.index(name), parent != group, key.count(".")

    best = min((key for key in known if key.rpartition(".")[2] in names), key=distance, default=None)
    if group and (best is None or distance(best)[0]):  # a similar field of the typed group is nearer
        beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == group}
        best = next(map(beside.get, difflib.get_close_matches(last, beside, n=1)), best)
    return best


def option_suggestion(wrong: str, options: Sequence[str]) -> str:
    """Likewise, for an option of a group, which may be given as a file."""
    meant = OTHER_OPTIONS.get(wrong.lower())
    return f"; did you mean {meant!r}?" if meant in options else check.suggestion(Path(wrong).stem, options)

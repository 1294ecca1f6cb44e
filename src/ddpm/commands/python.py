"""`ddpm.load`: a trained model as a Python object, without a command line and without Lightning."""

from pathlib import Path

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ddpm.base.program import CONF
from ddpm.checkpoint import groups
from ddpm.checkpoint.reading import holding
from ddpm.checkpoint.trust import take_trust
from ddpm.commands.config_errors import config_error
from ddpm.commands.no_effect import refuse_what_has_no_effect
from ddpm.commands.short_forms import expand_short_forms
from ddpm.config.checkpoint_path import checkpoint_path, fetch, fetch_checkpoints
from ddpm.config.compose import compose
from ddpm.config.load import changes, from_checkpoint
from ddpm.diffusion.variance import Analytic
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.runs import devices

OF_LOADING = ("weights", "seed", "batch_size", "trainer")


def load(ckpt: str | Path, *overrides: str, device: str | torch.device | None = None) -> DiffusionModel:
    """A trained model, ready to sample: `ddpm.load("latest", "sampler=ddim", "sampler.steps=20").sample(16)`.

    ckpt: a checkpoint, a run folder, an exported folder, hf:OWNER/NAME, a folder of diffusers, a .pt file of OpenAI, a
    .ckpt of CompVis, or `latest`, the newest checkpoint under runs/. overrides: as for sample.py: groups of a model and
    their fields, `weights`, `seed`, `batch_size`, `trainer.precision`, `trainer.accelerator`, `trust=[PACKAGE]`.
    device: device of the model; None selects the GPU if there is one, as in sample.py.

    Raises ValueError with one line that names the field, its value and the remedy. Files are parsed as data; code in
    them is never run.
    """
    words = expand_short_forms(take_trust(list(overrides)), CONF, "sample")
    try:
        config = compose(CONF, "sample", ["ckpt=latest", *words])
        refuse_other_words(words, config)
        refuse_what_has_no_effect(config, words)
        with holding():
            config = fetch_checkpoints(config)
            path = checkpoint_path(fetch(str(ckpt)))
            model, stored = from_checkpoint(path, changes(config))
    except HydraException as error:
        raise ValueError(config_error(error, CONF, "sample", words, list(overrides)).splitlines()[0]) from error
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    accelerator = devices.accelerator(config.trainer.accelerator)
    model.precision = devices.precision(config.trainer.precision, accelerator)
    model.batch_size = config.batch_size
    model.use_for_prediction(config.weights, config.seed)
    variance = getattr(model.sampler, "variance", None)
    if isinstance(variance, Analytic) and not variance.errors:
        from ddpm.config import analytic, build  # imports Lightning to read the training data

        analytic.prepare(model, stored, path, build.trainer(config))
    return model.to(device or {"gpu": "cuda"}.get(accelerator, accelerator)).eval()


def refuse_other_words(words: list[str], config: DictConfig) -> None:
    """Raise ValueError for overrides of sample.py that have no effect on loading."""
    for word in words:
        field = word.lstrip("+~").partition("=")[0].partition(".")[0]
        if field in ("class", "prompt", "num_samples"):
            raise ValueError(f"{word} has no effect on load(); it is for sample(num_samples, label=..., prompt=...)")
        if field in config and field not in (*groups.group_names(builds=True), *OF_LOADING):
            raise ValueError(f"{word} has no effect on load(); it is for python sample.py")

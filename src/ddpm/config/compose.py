"""Compose the configuration of a command without Hydra's main, inside another program and in any thread."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict


def compose(conf: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """As `hydra.compose` for `conf/NAME.yaml`, without reading or changing Hydra's global state.

    Raises Hydra's own errors. The group `hydra`, which includes the run folder, is not available.
    """
    loader = ConfigLoaderImpl(create_config_search_path(f"file://{conf.resolve()}"))
    words = [f"hydra.job.name={name}", *overrides]  # otherwise Hydra looks up the name of the running program
    config = loader.load_configuration(name, words, RunMode.RUN, from_shell=False)
    with open_dict(config):
        del config["hydra"]
    return config

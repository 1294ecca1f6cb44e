"""The configuration of a command without Hydra's main, for use inside any other program, in any thread."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict


def compose(conf: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """What `hydra.compose` returns for `conf/NAME.yaml`, neither reading nor leaving any global state of Hydra's.

    Raises Hydra's own errors. What belongs to Hydra, a run's folder among it, is not there to be read.
    """
    loader = ConfigLoaderImpl(create_config_search_path(f"file://{conf.resolve()}"))
    words = [f"hydra.job.name={name}", *overrides]  # else the name of the program around it is looked up
    config = loader.load_configuration(name, words, RunMode.RUN, from_shell=False)
    with open_dict(config):
        del config["hydra"]
    return config

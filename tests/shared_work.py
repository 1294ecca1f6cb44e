"""What every test would wait for: the disk, and Hydra that reads and joins the same files of `conf/` again."""

import copy
import dataclasses
import os

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import Overrides
from small_runs import ROOT

CONF = str(ROOT / "conf")


def remember_conf():
    """Replace three of Hydra's functions by the same with a memory. Values of single fields are set each time.

    A fourth makes a map of all choices for each group, and few defaults refer to another group.
    """
    read, list_defaults = ConfigRepository.load_config, config_loader_impl.create_defaults_list
    join = ConfigLoaderImpl._compose_config_from_defaults_list
    map_choices = defaults_list._create_interpolation_map
    files, lists, joined = {}, {}, {}

    def load_config(self, config_path):
        if folders_of(self) != [CONF]:
            return read(self, config_path)
        if config_path not in files:
            files[config_path] = read(self, config_path)
        return copy.deepcopy(files[config_path])

    def create_defaults_list(repo, config_name, overrides_list, **options):
        if folders_of(repo) != [CONF]:
            return list_defaults(repo, config_name, overrides_list, **options)
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        choices = tuple(each.input_line for each in overrides_list if each not in values)
        key = (config_name, choices, *options.items())
        if key not in lists:
            lists[key] = list_defaults(repo, config_name, overrides_list, **options)
        return dataclasses.replace(lists[key], config_overrides=values)

    def compose_config(self, defaults, repo):
        key = next((key for key, known in lists.items() if known.defaults is defaults), None)
        if key is None:
            return join(self, defaults, repo)
        if key not in joined:
            joined[key] = join(self, defaults, repo)
        return copy.deepcopy(joined[key])

    def create_interpolation_map(overrides, defaults, self_added):
        is_needed = any(each.is_interpolation() for each in defaults)
        return map_choices(overrides, defaults, self_added) if is_needed else None

    ConfigRepository.load_config = load_config
    defaults_list._create_interpolation_map = create_interpolation_map
    config_loader_impl.create_defaults_list = create_defaults_list
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_config


def folders_of(repository):
    return [source.path for source in repository.get_sources() if source.scheme() == "file"]


def skip_syncs():
    """No test cuts the power: what a killed process has written is read back without `fsync`, which takes 12 ms."""
    os.fsync = lambda _: None

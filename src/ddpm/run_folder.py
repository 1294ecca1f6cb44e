"""The folder of the run that a command continues: the newest one of the same settings that has a whole checkpoint."""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from ddpm import launch

RUNS = Path("runs")
SETTINGS = "config.yaml"
"""Beside the checkpoints: what they were trained with, written once it is accepted."""


def arguments(typed: list[str], conf: Path) -> list[str]:
    """What was typed, with the folder to use where it is not Hydra's to choose."""
    if launch.by_lightning() or any(word.startswith("-") and word not in ("-m", "--multirun") for word in typed):
        return typed  # Hydra's own flags
    launch.refuse_launcher(typed)
    sweeps = "-m" in typed or "--multirun" in typed
    field = "hydra.sweep.dir" if sweeps else "hydra.run.dir"
    overrides = [word for word in typed if not word.startswith("-")]
    given = [word for word in overrides if word.startswith(f"{field}=")]
    named = [word.partition("=")[2] for word in overrides if word.startswith("resume.path=")]
    if not given and named and Path(named[-1], "checkpoints").is_dir():
        folder = named[-1]
    elif given or not (launch.starts_together() or "resume=auto" in overrides):
        folder = None
    else:
        find = swept if sweeps else found
        folder = launch.shared(lambda: str(find(overrides, conf) or fresh(overrides, conf, field)))
    quiet = [] if launch.is_first() else ["hydra.output_subdir=null"]
    return [*typed, *([f"{field}={folder}"] if folder else []), *quiet]


def composed(overrides: list[str], conf: Path, **kwargs: bool) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return compose("train", overrides=overrides, **kwargs)


def fresh(overrides: list[str], conf: Path, field: str) -> str:
    """A new folder as Hydra would name it. Words with several values are for its sweeper to take apart."""
    words = OverridesParser.create().parse_overrides(overrides)
    single = [word.input_line for word in words if not word.is_sweep_override()]
    return OmegaConf.select(composed(single, conf, return_hydra_config=True), field)


def found(overrides: list[str], conf: Path) -> Path | None:
    """The newest run whose training differs in no setting. A near miss is told on stderr."""
    if "resume=auto" not in overrides:
        return None
    from ddpm.build import portable
    from ddpm.checkpoint.folder import newest_whole
    from ddpm.resume import covers, differences

    config = composed(overrides, conf)
    now = portable(config)
    nearest: tuple[int, Path, dict] | None = None
    for folder in newest_first(RUNS.glob(f"**/checkpoints/{SETTINGS}")):
        stored = OmegaConf.to_container(OmegaConf.load(folder / "checkpoints" / SETTINGS))
        changed = differences(stored, now, and_place_of_data=True)
        changed = {key: each for key, each in changed.items() if not any(covers(a, key) for a in config.resume.allow)}
        if not changed and newest_whole(folder / "checkpoints"):
            return folder
        if changed and (nearest is None or len(changed) < nearest[0]):
            nearest = len(changed), folder, changed
    if nearest:
        told = ", ".join(f"{key}: {before} -> {after}" for key, (before, after) in nearest[2].items())
        print(f"no run of these settings in {RUNS}; the nearest, {nearest[1]}, differs in {told}", file=sys.stderr)
    return None


def swept(overrides: list[str], conf: Path) -> Path | None:
    """The newest sweep of the same words."""
    if "resume=auto" not in overrides:
        return None
    for file in sorted(RUNS.glob("*/multirun.yaml"), key=lambda file: file.stat().st_mtime, reverse=True):
        words = OmegaConf.select(OmegaConf.load(file), "hydra.overrides.task")
        if sorted(words or []) == sorted(word for word in overrides if not word.startswith(("hydra.", "hydra/"))):
            return file.parent
    return None


def newest_first(configs: object) -> list[Path]:
    folders = [config.parent.parent for config in configs]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)

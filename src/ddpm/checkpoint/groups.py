"""Properties of the groups and top-level fields of the configuration. All lists of groups are derived from this table.

A new group is one row here and one folder in conf/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """builds: the model is built from this group. stored: the group is stored in checkpoints; settings of the machine
    and of metrics during training are not. decides_images: other settings give other images with the same weights.

    may_change: the group, or these fields of it, may differ on resuming without `resume.allow`, because they change no
    training step except for rounding. Data are compared by content. may_be_none: a model may lack this part. before:
    the settings that an older configuration without this group implies. places: fields that say where a file lies, of
    which the fitted values have a hash. chosen: fields that are null until they are chosen at the start of a run; a
    resumed run keeps them.
    """

    name: str
    builds: bool = False
    stored: bool = True
    decides_images: bool = False
    may_change: bool | tuple[str, ...] = False
    before: Mapping[str, Any] | None = None
    places: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    may_be_none: bool = False


WHITE = {"_target_": "ddpm.diffusion.noises.base.White"}
NO_CONDITION = {"_target_": "ddpm.diffusion.conditions.base.NoCondition"}
UNGUIDED = {"_target_": "ddpm.diffusion.denoiser.no_wrapper", "_partial_": True, "order": ["guidance", "clip"]}

GROUPS = [
    Group("schedule", builds=True, decides_images=True),
    Group("noise", builds=True, decides_images=True, before=WHITE),
    Group("process", builds=True, decides_images=True),
    Group("objective", builds=True, decides_images=True),
    Group("time_sampler", builds=True),
    Group("weight", builds=True),
    Group("error", builds=True),
    Group("loss", builds=True),
    Group("variance", builds=True, may_change=True),  # affects images as a part of the sampler
    Group("timestep_spacing", builds=True, may_change=True),  # likewise
    Group("sampler", builds=True, may_change=True),  # affects images; see `generation.identity.identity`
    Group("clip", builds=True, decides_images=True, may_change=True),
    Group("guidance", builds=True, decides_images=True, may_change=True, before=UNGUIDED),
    Group("codec", builds=True, decides_images=True, may_change=("first_stage",), places=("first_stage",)),
    Group(
        "text",
        builds=True,
        decides_images=True,
        may_be_none=True,
        may_change=("path", "tokenizer", "memory_limit_mb"),
        before={},
        places=("path", "tokenizer"),
    ),
    Group("cond", builds=True, decides_images=True, before=NO_CONDITION),
    Group(
        "model",
        builds=True,
        decides_images=True,
        chosen=("base_channels", "channel_mults", "attention_levels", "patch_size"),
    ),
    Group("ema", builds=True),
    Group("optimizer", builds=True),
    Group("adversary"),
    Group("adversary_optimizer"),
    Group("perceptual", may_change=("weights", "sha256")),
    Group(
        "data",
        may_change=(
            *("name", "source", "test_source", "label_images", "num_workers", "pin_memory", "memory_limit_mb"),
            *("verify", "eval_batch_size", "download"),
        ),
    ),
    Group(
        "trainer",
        chosen=("max_steps",),
        may_change=(
            *("accelerator", "devices", "num_nodes", "strategy", "max_steps", "max_time", "max_epochs"),
            *("log_every_n_steps", "val_check_interval", "limit_val_batches", "profiler", "deterministic"),
        ),
    ),
    Group("limits", may_change=("timeout_minutes",), before={"max_minutes": None, "timeout_minutes": 30}),
    Group("name", may_change=True),
    Group("seed"),
    Group("compile", may_change=True),
    Group("channels_last", may_change=True),
    Group("sample_every_n_steps", may_change=True),
    Group("checkpoint_every_n_steps", may_change=True),
    *(Group(name, stored=False) for name in ("run_dir", "logger", "callbacks", "keep", "resume", "dry_run", "hydra")),
    *(Group(name, stored=False) for name in ("metric", "features", "features_batch_size", "evaluate")),
]


def group_names(**wanted: bool) -> list[str]:
    """Names of the groups with these properties, in the order of the table: `group_names(builds=True)`."""
    return [group.name for group in GROUPS if all(getattr(group, key) == value for key, value in wanted.items())]


def old_config_defaults() -> dict[str, dict[str, Any]]:
    """Settings of the groups that older configurations lack."""
    return {group.name: dict(group.before) for group in GROUPS if group.before is not None}


def places(name: str) -> tuple[str, ...]:
    return next(group.places for group in GROUPS if group.name == name)


def chosen_at_the_start() -> list[str]:
    return [f"{group.name}.{field}" for group in GROUPS for field in group.chosen]


def changeable_on_resume() -> list[str]:
    """Names of groups, and of fields such as `trainer.devices`, that may differ from the checkpoint on resuming."""
    whole = [group.name for group in GROUPS if group.may_change is True]
    return whole + [f"{g.name}.{field}" for g in GROUPS if isinstance(g.may_change, tuple) for field in g.may_change]

"""Analyze a noise schedule: python -m ddpm check-schedule schedule=linear T=100   (--help lists the schedules)"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.plots import describe_place
from ddpm.base.program import CONF
from ddpm.commands import cli
from ddpm.commands.options import options_of
from ddpm.config import wiring
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.schedule_check import examination, picture

STEPS = (10, 20, 50, 100)
"""Numbers of sampling steps for which the largest rise of log-SNR is printed."""


def run_check_schedule(config: DictConfig) -> None:
    power = check.positive_number("data_power", config.data_power)
    if config.out and not str(config.out).endswith(".png"):
        check.fail("out", config.out, "the name of a .png")
    schedule = wiring.instantiate(config.schedule, "schedule")
    if not isinstance(schedule, NoiseSchedule):
        raise ValueError("schedule=steps has no noise levels to analyze; choose another schedule")
    leaf = OmegaConf.to_container(config.schedule, resolve=True)
    name = schedule_name(HydraConfig.get().runtime.choices)
    out = Path(config.out or f"schedules/{name}_{schedule.T}.png")
    others, refused = other_schedules(name, schedule)
    print(name)
    for key, value in describe_schedule(schedule, leaf, power).items():
        print(f"  {key:16} {value}")
    for band, share in examination.step_budget(schedule).items():
        print(f"  {band:>11} dB   {share:6.1%} of the steps  {'#' * round(40 * share)}".rstrip())
    for steps in (number for number in STEPS if number <= schedule.T):
        jump = examination.largest_jump(schedule, steps)
        rise = jump.rise * 10 / math.log(10)
        print(f"  {steps:3} even steps   raise the SNR by up to {rise:.1f} dB, from t = {jump.t} to {jump.s}")
    place = describe_place(out)
    picture.draw_schedule(out, name, schedule, others, adjusted_schedule(name, config.schedule))
    print(f"  {'picture':16} {place}")
    if refused:
        print(f"  {'not plotted':16} {', '.join(refused)}: impossible with T = {schedule.T}")
    print(f"{name} with T = {schedule.T}: {examination.verdict(schedule, leaf, power)}")


def describe_schedule(schedule: NoiseSchedule, leaf: Mapping[str, Any], data_power: float) -> dict[str, str]:
    betas = examination.single_betas(schedule)
    left = examination.prior_bits(schedule, data_power)
    return {
        "T": f"{schedule.T}",
        "SNR at t = 1": format_snr(schedule.snr(1)),
        "SNR at T": format_snr(schedule.snr(schedule.T)),
        "prior": f"x_T contains {left:.3g} bits/dim about data with mean square {data_power:g}",
        "largest beta": f"{betas.max():.3g} at t = {1 + int((betas > betas.max() * (1 - 1e-9)).nonzero()[0])}",
        "clipped betas": describe_clipped_betas(leaf),
        "in float32": f"1 - alpha_bar would have a relative error of up to {examination.float32_error(schedule):.1e}",
    }


def format_snr(snr: float) -> str:
    return f"{snr:.3g} ({examination.decibels(snr):.1f} dB)" if snr else "0, no signal is left"


def describe_clipped_betas(leaf: Mapping[str, Any]) -> str:
    """For the innermost schedule, because schedules that modify another one do not clip."""
    while "of" in leaf:
        leaf = leaf["of"]
    if "max_beta" not in leaf:
        return "none, as there is no max_beta"
    schedule = wiring.instantiate(OmegaConf.create(dict(leaf)), "schedule")
    return f"{examination.num_clipped(schedule, leaf['max_beta'])} at max_beta = {leaf['max_beta']:g}"


def schedule_name(choices: Mapping[str, str]) -> str:
    """ "linear", or "zero_terminal_snr_of_linear" if one schedule modifies another."""
    inner = sorted((key for key in choices if key.startswith("schedule@")), key=len)
    return "_of_".join(choices[key] for key in ("schedule", *inner))


def adjusted_schedule(name: str, leaf: DictConfig) -> dict[str, NoiseSchedule]:
    """The schedule that another one adjusts, by its name; empty without an adjustment."""
    return {name.partition("_of_")[2]: wiring.instantiate(leaf.of, "schedule.of")} if "of" in leaf else {}


def other_schedules(name: str, schedule: NoiseSchedule) -> tuple[dict[str, NoiseSchedule], list[str]]:
    """All other schedules of conf/schedule with the same T, and the names of those that do not allow this T."""
    found, refused = {}, []
    for option, leaf in schedule_configs(schedule.T).items():
        try:
            other = wiring.instantiate(leaf, option)
        except ValueError:
            refused.append(option)
            continue
        if not isinstance(other, NoiseSchedule):
            continue  # schedule=steps
        if not other.alpha_bar.equal(schedule.alpha_bar):
            found[f"{option} as in conf" if option == name else option] = other
    return found, refused


def schedule_configs(num_timesteps: int) -> DictConfig:
    """The configurations in conf/schedule by name. They are composed together, which is faster than one at a time."""
    options = options_of(CONF, "schedule")
    leaves = [f"+schedule@every.{option}={option}" for option in options]
    lengths = [f"every.{option}.num_timesteps={num_timesteps}" for option in options]
    return compose("check_schedule", overrides=[*leaves, *lengths]).every


def expand_arguments(typed: list[str], conf: Path) -> list[str]:
    """Replace T=100 by schedule.num_timesteps=100."""
    return [re.sub(r"^T=", "schedule.num_timesteps=", word) for word in typed]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="check_schedule")
def main(config: DictConfig) -> None:
    cli.run_job(run_check_schedule, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "check_schedule", prepare=expand_arguments)

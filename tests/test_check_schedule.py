"""The check of a schedule: its numbers against closed forms, its verdicts, and the command as it is typed."""

import math
import sys
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from ddpm.commands import check_schedule, cli, train
from ddpm.commands.options import options_of
from ddpm.config import build
from ddpm.diffusion.schedules.betas import constant, linear
from ddpm.diffusion.schedules.curves import cosine, jsd
from ddpm.schedule_check import examination

HO = {"beta_start": 1e-4, "beta_end": 0.02}


def test_the_log_snr_of_jsd_is_the_log_odds_of_the_time_left():
    expected = [math.log((50 - t) / t) for t in range(1, 50)]
    found = examination.log_snr_of(jsd(50)).tolist()
    assert found[:-1] == pytest.approx(expected, rel=1e-12)
    assert found[-1] == -math.inf


def test_the_log_snr_of_a_cosine_without_offset_is_that_of_a_cotangent():
    found = examination.log_snr_of(cosine(100, offset=0, max_beta=0.999)).tolist()[:-1]
    expected = [-2 * math.log(math.tan(math.pi / 2 * t / 100)) for t in range(1, 100)]
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_betas_of_a_constant_schedule_are_that_constant():
    np.testing.assert_allclose(examination.single_betas(constant(30, 0.25, rescale=False)).numpy(), np.full(30, 0.25))


@pytest.mark.parametrize("power", [0.25, 1.0])
def test_the_prior_is_the_divergence_that_torch_gives_averaged_over_the_data(power):
    """Data of -sqrt(power) and sqrt(power)."""
    schedule = linear(100, **HO, rescale=False)
    a = schedule.alpha_bar[-1]
    ours = torch.distributions.Normal((a * power).sqrt() * torch.tensor([-1.0, 1.0]).double(), (1 - a).sqrt())
    bits = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0, 1)).mean() / math.log(2)
    assert examination.prior_bits(schedule, power) == pytest.approx(bits.item(), rel=1e-12)


def test_the_linear_schedule_of_100_steps_leaves_a_third_of_a_bit_unless_it_is_rescaled():
    """0.326 bits/dim for data of mean square 1; Ho et al. 2020, section 4, have about 1e-5 with 1,000 steps."""
    assert examination.prior_bits(linear(100, **HO, rescale=False), 1.0) == pytest.approx(0.326, abs=5e-4)
    assert examination.prior_bits(linear(1000, **HO, rescale=True), 1.0) == pytest.approx(2.9e-5, rel=0.01)
    assert examination.prior_bits(jsd(10), 0.5) == 0


@pytest.mark.parametrize(("T", "clipped"), [(10, 1), (1000, 1)])
def test_of_the_cosine_betas_only_the_last_is_clipped_at_0_999(T, clipped):
    """Nichol and Dhariwal 2021, section 3.2: against singularities at the end."""
    assert examination.num_clipped(cosine(T, 0.008, 0.999), 0.999) == clipped


def test_a_lower_limit_clips_the_betas_that_the_curve_has_above_it():
    angle = (np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2
    curve = np.cos(angle) ** 2
    above = (1 - curve[1:] / curve[:-1] > 0.1).sum()
    assert above > 5
    assert examination.num_clipped(cosine(100, 0.008, 0.1), 0.1) == above


def test_the_error_of_float32_tables_is_about_the_rounding_of_one_over_the_first_beta():
    """Near 1 float32 numbers lie 6e-8 apart, so 1 - alpha_bar = beta at t = 1 is off by at most 3e-8 / beta or so."""
    for beta in (1e-2, 1e-4, 1e-5):
        error = examination.float32_error(constant(1, beta, rescale=False))
        assert error <= 6e-8 / beta
    assert examination.float32_error(constant(1, 1e-9, rescale=False)) == 1  # 1 - 1e-9 is 1 in float32
    assert examination.float32_error(constant(1, 0.5, rescale=False)) == 0


def test_the_step_budget_of_jsd_is_the_logistic_curve_of_each_decade():
    """SNR = (T - t) / t is above r for t < T / (1 + r). Off by a time or two of 100,000."""
    budget = examination.step_budget(jsd(100_000))
    above = {edge: 1 / (1 + 10 ** (edge / 10)) for edge in range(-40, 41, 10)}
    assert budget["above 40"] == pytest.approx(above[40], abs=3e-5)
    assert budget["10 to 0"] == pytest.approx(above[0] - above[10], abs=3e-5)
    assert budget["0 to -10"] == pytest.approx(above[-10] - above[0], abs=3e-5)
    assert budget["below -40"] == pytest.approx(1 - above[-40], abs=3e-5)
    assert sum(budget.values()) == pytest.approx(1, rel=1e-12)


def test_the_largest_jump_of_jsd_is_at_the_end_that_still_has_signal():
    """Times 100, 90, ..., 10, 0: the odds rise from 10 / 90 to 20 / 80, and from 80 / 20 to 90 / 10 just as much."""
    jump = examination.largest_jump(jsd(100), 10)
    assert jump.rise == pytest.approx(math.log(9 / 4), rel=1e-12)
    assert (jump.t, jump.s) in [(90, 80), (20, 10)]


@pytest.mark.parametrize(
    ("schedule", "leaf", "words"),
    [
        (linear(1000, **HO, rescale=True), {}, "fit; x_T contains 2.9e-05 bits/dim about x0"),
        (jsd(1000), {}, "fit for objective=v and x0, not for eps, because no signal is left at T"),
        (linear(100, **HO, rescale=False), {"rescale": False}, "0.33 bits/dim about x0: use schedule.rescale=true"),
        (constant(1000, 1e-4, rescale=False), {"beta": 1e-4}, "use a larger schedule.beta, or schedule=zero_terminal"),
        (
            constant(1000, 0.02, rescale=True),
            {"beta": 0.02},
            "66% of the steps are below an SNR of 0.001: use a small",
        ),
        (linear(4000, **HO, rescale=False), {"rescale": False}, "an SNR of 0.001: use schedule.rescale=true"),
        (jsd(10), {}, "the last step, from x_1 with an SNR of 9, removes much noise at once: increase num_timesteps"),
    ],
    ids=["Ho", "jsd", "short", "weak", "strong", "long", "coarse"],
)
def test_the_verdict_names_the_fault_and_the_remedy(schedule, leaf, words):
    assert words in examination.verdict(schedule, leaf)


@pytest.fixture
def typed(monkeypatch, tmp_path, capsys):
    """`typed("schedule=linear")`: what the command prints, run in an empty folder."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ddpm check-schedule", *arguments])
        GlobalHydra.instance().clear()
        cli.run_command(
            check_schedule.main, check_schedule.CONF, "check_schedule", prepare=check_schedule.expand_arguments
        )
        return capsys.readouterr().out

    return run


def test_the_command_prints_figures_and_a_verdict_and_draws_the_picture(typed, tmp_path):
    text = typed("schedule=linear", "T=100", "schedule.rescale=false")
    assert "x_T contains 0.326 bits/dim about data with mean square 1\n" in text
    assert text.splitlines()[-1].startswith("linear with T = 100: x_T still contains 0.33 bits/dim about x0")
    with Image.open(tmp_path / "schedules" / "linear_100.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "schedules").iterdir()] == ["linear_100.png"]


def test_the_schedule_of_text_to_images_is_said_to_leave_signal_and_that_of_faces_to_be_fit(typed):
    """Rombach et al. 2022: 3.4e-3 and 1.0e-4 bits per dimension."""
    text = typed("schedule=scaled_linear", "schedule.beta_start=0.00085", "schedule.beta_end=0.012")
    assert (
        "scaled_linear with T = 1000: x_T still contains 0.0034 bits/dim about x0: use a larger schedule.beta_end"
        in text
    )
    text = typed("schedule=scaled_linear")
    assert "T = 1000: fit; x_T contains 0.0001 bits/dim about x0" in text


def test_schedules_that_adjust_others_compose_for_any_schedule(typed, tmp_path):
    of = ["schedule@schedule.of=zero_terminal_snr", "schedule@schedule.of.of=sigmoid"]
    text = typed("schedule=shifted", *of, "schedule.size=128", "T=50", "out=mine.png")
    assert text.startswith("shifted_of_zero_terminal_snr_of_sigmoid\n")
    assert "0, no signal is left" in text
    assert "1 at max_beta = 0.999" in text
    assert (tmp_path / "mine.png").exists()


def test_schedules_that_cannot_have_so_few_steps_are_named_and_left_out(typed):
    assert "constant, linear, quadratic" in next(
        x for x in typed("schedule=vp", "T=4").splitlines() if "not plotted" in x
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("T=abc", "schedule.num_timesteps must be a number, got 'abc'"),
        ("schedule=liner", "did you mean 'linear'?"),
        ("data_power=0", "data_power must be greater than 0, got 0"),
        ("out=picture.jpg", "out must be the name of a .png, got 'picture.jpg'"),
    ],
)
def test_what_is_typed_wrongly_is_one_line_with_the_remedy(typed, capsys, wrong, message):
    with pytest.raises(SystemExit):
        typed(wrong)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wrapper", ["zero_terminal_snr", "shifted"])
def test_a_schedule_that_adjusts_another_takes_each_of_them_with_its_length(wrapper):
    options = [option for option in options_of(check_schedule.CONF, "schedule") if option != "steps"]
    chosen = [f"+schedule@{option}={wrapper}" for option in options]
    of = [f"schedule@{option}.of={option}" for option in options]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(check_schedule.CONF), version_base="1.3"):
        config = compose(
            "check_schedule", overrides=[*chosen, *of, *(f"{option}.num_timesteps=60" for option in options)]
        )
    for option in options:
        alpha_bar = hydra.utils.instantiate(config[option]).alpha_bar
        assert len(alpha_bar) == 61
        ends_at_zero = "zero_terminal_snr" in (wrapper, option) or option == "jsd"
        assert (alpha_bar[-1] == 0) == ends_at_zero, option


def test_training_says_at_its_start_whether_its_schedule_and_warmup_are_fit(small, capsys):
    config = small(
        "schedule=linear", "schedule.num_timesteps=100", "schedule.rescale=false", "optimizer.warmup_steps=9"
    )
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(world_size=1, strategy=strategy, precision="32-true")
    train.print_run(config, build.module(config), trainer, path=None, step=0)
    output = capsys.readouterr().out
    assert "\nschedule: x_T still contains 0.33 bits/dim about x0: use schedule.rescale=true" in output
    assert f"\nnote: optimizer.warmup_steps=9 is more than all {config.trainer.max_steps} steps" in output


def test_a_picture_that_is_replaced_is_named(typed):
    assert "schedules/linear_100.png\n" in typed("schedule=linear", "T=100")
    other = typed("schedule=linear", "T=100", "schedule.beta_end=0.03")
    assert "schedules/linear_100.png, in place of an earlier one; out=FILE.png is another place\n" in other

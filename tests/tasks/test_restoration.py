"""task=degradation and task=restoration, and metric=restoration, from commands' settings to their files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from precision import assert_same, roundings
from small_models import trained
from small_runs import csv_rows

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.commands import evaluate, sample
from ddpm.diffusion.degradations.base import Degradation
from ddpm.diffusion.degradations.fade import Fade
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.restoration import ALGORITHM_1, ALGORITHM_2, DEGRADED, ONE_STEP, WAYS, restorations
from ddpm.diffusion.samplers.cold import Cold
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.cosine import cosine
from ddpm.diffusion.steps import Steps
from ddpm.diffusion.timestep_spacing import uniform
from ddpm.metrics.protocol import read_result

RNG = Rng(5, "sample")
IDS = torch.tensor([4, 9, 2])
X0 = RNG.at(0, IDS).normal("x", (1, 6, 6)).double().clamp(-1, 1)
FADE = Fade(schedule=Steps(8), fitted=None, symmetry_noise=0.0, colour=0.5)


class Guess:
    """A restorer that is wrong, differently each time."""

    def __call__(self, x_t, t, cond):
        return Prediction(torch.sin(5 * x_t + t))


class Truth:
    def __call__(self, x_t, t, cond):
        return Prediction(X0[: len(x_t)])


def restored(denoiser, process, t, steps=None, ids=IDS, x0=X0):
    return restorations(denoiser, Cold(process, uniform, steps), x0, t, RNG, ids, {})


# Of functions


def test_a_restorer_that_knows_is_believed_by_all():
    outputs = restored(Truth(), FADE, 8)
    for way in (ONE_STEP, ALGORITHM_1, ALGORITHM_2):
        assert_same(outputs[way], X0)
    assert torch.equal(outputs[DEGRADED], torch.full_like(X0, 0.5))


def test_a_single_step_is_the_restorers_own_belief():
    outputs = restored(Guess(), FADE, 5)
    assert_same(outputs[DEGRADED], X0 + 5 / 8 * (0.5 - X0))
    assert_same(outputs[ONE_STEP], torch.sin(5 * outputs[DEGRADED] + 5))
    both = restored(Guess(), FADE, 5, steps=1)
    assert_same(both[ALGORITHM_1], outputs[ONE_STEP])
    assert_same(both[ALGORITHM_2], outputs[ONE_STEP] + outputs[DEGRADED] - FADE.apply(outputs[ONE_STEP], X0, 5))


def test_from_a_colour_algorithm_2_ends_at_the_mean_of_all_beliefs_and_algorithm_1_at_the_last():
    """Each of T steps moves x by (belief - colour) / T."""

    class Counting:
        def __call__(self, x_t, t, cond):
            return Prediction(torch.full_like(x_t, t / 10))

    outputs = restored(Counting(), FADE, 8)
    assert_same(outputs[ALGORITHM_2], torch.full_like(X0, 0.45))  # of 0.1, 0.2, ..., 0.8
    assert_same(outputs[ALGORITHM_1], torch.full_like(X0, 0.1))


def test_with_noise_both_algorithms_are_ddim():
    """Hot diffusion: noise is inferred, so that both of them keep it."""
    process = GaussianDiffusion(cosine(20, 0.008, 0.999))
    outputs = restored(Guess(), process, 20)
    *_, last = DDIM(process, uniform, None, 0.0).trajectory(Guess(), outputs[DEGRADED], RNG, IDS)
    for way in (ALGORITHM_1, ALGORITHM_2):
        assert_same(outputs[way], last.x_t)


def test_an_image_is_restored_the_same_whatever_is_beside_it():
    class Spot(Degradation):
        """x0 with a number of the sample's own added."""

        def draw(self, x0, draws):
            return draws.normal("spot", (1, 1, 1)).to(x0.dtype)

        def apply(self, x0, z, t):
            return x0 + t * z

    process = Spot(schedule=Steps(4))
    whole = restored(Guess(), process, 4)
    alone = restored(Guess(), process, 4, ids=IDS[1:2], x0=X0[1:2])
    for way in WAYS:
        assert_same(alone[way], whole[way][1:2])


# Of commands


COLD = (
    *("schedule=steps", "schedule.num_timesteps=4", "objective=x0", "error=mae", "sampler=cold"),
    *("process=fade", "sampler.steps=null", "data.num_val=40", "data.num_train=64"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoint of a tiny model that fades."""
    return trained(tmp_path_factory.mktemp("cold"), *COLD)


def used(config, run, folder, *overrides):
    """Arrays and figures of a task, and its picture."""
    sample.run_sample(config("sample", f"ckpt={run}", "trainer=cpu", f"out={folder}", *overrides))
    name = next(folder.glob("*.npz")).stem
    return np.load(folder / f"{name}.npz"), json.loads((folder / f"{name}.json").read_text()), folder / f"{name}.png"


def test_a_strip_begins_with_the_image_and_ends_with_nothing_of_it(config, run, tmp_path):
    arrays, figures, picture = used(config, run, tmp_path, "task=degradation", "task.images=[3,17]", "task.num_times=3")
    assert figures["times"] == [0, 2, 4]
    assert figures["images"] == [3, 17]
    first = arrays["images"][:, 0]
    np.testing.assert_allclose(arrays["images"][:, 1], (first - 1) / 2, atol=roundings(2))  # halfway to black
    np.testing.assert_array_equal(arrays["images"][:, 2], -1)
    assert Image.open(picture).size[0] > 3 * 64


def test_a_strip_has_no_more_columns_than_the_process_has_times(config, run, tmp_path):
    arrays, figures, _ = used(config, run, tmp_path, "task=degradation", "task.images=2", "task.num_times=50")
    assert figures["times"] == [0, 1, 2, 3, 4]
    assert arrays["images"].shape == (2, 5, 1, 8, 8)


def test_restoration_shows_all_ways_and_says_how_near_they_are(config, run, tmp_path):
    arrays, figures, _ = used(config, run, tmp_path, "task=restoration", "task.images=3", "task.t=2", "task.split=val")
    np.testing.assert_allclose(arrays["degraded"], (arrays["originals"] - 1) / 2, atol=roundings(2))
    for way in ("degraded", "one_step", "algorithm_1", "algorithm_2"):
        errors = np.sqrt((((arrays[way] - arrays["originals"]) / 2) ** 2).mean((1, 2, 3)))
        np.testing.assert_allclose(figures[way]["rmse"], errors, rtol=roundings(20))  # means of 64 pixels


def test_metric_restoration_agrees_with_what_the_task_shows(config, run, tmp_path):
    """All 40 held-out images: means over the arrays of task=restoration; the csv and the picture lie beside.

    The network is float32: in other batches some hundred roundings of pixels of size 1 are others.
    """
    arrays, _, _ = used(config, run, tmp_path / "task", "task=restoration", "task.images=40")
    out = tmp_path / "evaluations"
    evaluate.run_evaluate(
        config(
            "evaluate", f"ckpt={run}", "metric=restoration", "metric.restoration.features=null", "trainer=cpu",
            f"out={out}", "metric.restoration.num_images=null", "metric.restoration.num_shown=3", "batch_size=16",
        )
    )  # fmt: skip
    (path,) = out.glob("*.json")
    found = read_result(path).estimates
    for way in ("degraded", "one_step", "algorithm_1", "algorithm_2"):
        errors = np.sqrt((((arrays[way] - arrays["originals"]) / 2) ** 2).mean((1, 2, 3)))
        assert found[f"rmse_{way}_40"].value == pytest.approx(errors.mean(), rel=roundings(100))
        assert found[f"rmse_{way}_40"].error == pytest.approx(errors.std(ddof=1) / np.sqrt(40), abs=roundings(100))
        decibels = -20 * np.log10(errors)
        assert found[f"psnr_{way}_40"].value == pytest.approx(decibels.mean(), abs=roundings(100, scale=10))
    gained = found["psnr_algorithm_2_40"].value - found["psnr_degraded_40"].value
    assert found["psnr_gain_40"].value == pytest.approx(gained, abs=1e-9)
    (table,) = out.glob("*.csv")
    rows = csv_rows(table)
    assert [row["way"] for row in rows] == list(WAYS)
    assert float(rows[0]["rmse"]) == pytest.approx(found["rmse_degraded_40"].value)
    assert len(list(out.glob("*_pictures.png"))) == 1


@pytest.mark.parametrize(
    ("program", "overrides", "message"),
    [
        ("sample", ("task=restoration", "task.t=5"), r"task.t must be an integer in 1..4, got 5"),
        ("sample", ("task=degradation", "task.num_times=1"), "task.num_times must be an integer of at least 2"),
        ("evaluate", ("metric=restoration", "metric.restoration.t=9"), "restoration.t must be an integer in 1..4"),
        ("evaluate", ("metric=restoration", "metric.restoration.num_shown=0"), "num_shown must be a positive integer"),
        ("evaluate", ("metric=nll",), "a likelihood needs .* use metric=fid or metric=restoration"),
    ],
)
def test_what_cannot_be_is_refused(config, run, tmp_path, program, overrides, message):
    chosen = config(program, f"ckpt={run}", "trainer=cpu", f"out={tmp_path}", *overrides)
    with pytest.raises(ValueError, match=message):
        (sample.run_sample if program == "sample" else evaluate.run_evaluate)(chosen)

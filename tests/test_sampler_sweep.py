"""evaluate.py sweep=samplers: every sampler with every number of steps; and measures that look at no image."""

import json
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from small_models import Quarters
from small_runs import ROOT, csv_rows

from ddpm.commands import evaluate
from ddpm.commands.options import options_of
from ddpm.evaluation.model_metric import Measurement
from ddpm.generation.progress import GenerationClock
from ddpm.generation.record import GenerationRecord, Timing
from ddpm.metrics.protocol import read_result
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.networks.unet import UNet
from ddpm.report.results import read_results

pytestmark = pytest.mark.filterwarnings("ignore:FID.* of")
NUM = 20  # images of each point, in batches of 8: three
POINTS = ("sweep=samplers", "sweep.samplers=[ddim,heun]", "sweep.steps=[2,3]")
CALLS = 2 + 3 + 2 + 4  # of the network for each batch: n of DDIM, 2n - 1 of Heun, less one for its long first step


@pytest.fixture
def extractors(monkeypatch):
    """Every extractor that was loaded."""
    loaded = []
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: loaded.append(Quarters()) or loaded[-1])
    return loaded


@pytest.fixture
def checkpoint(copied, extractors):
    """Of a run of this test's own."""
    return copied() / "checkpoints" / "last.ckpt"


@pytest.fixture
def calls(monkeypatch):
    """The sizes of the batches that the network was shown."""
    seen, forward = [], UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x, *rest: seen.append(len(x)) or forward(self, x, *rest))
    return seen


@pytest.fixture
def swept(config, checkpoint, capsys):
    """`swept("seed=1")`: the rows of the sweep's CSV; what was printed as `find_sweep.printed`."""

    def run(*overrides, out="results"):
        folder = checkpoint.parents[2] / out
        capsys.readouterr()
        words = (f"ckpt={checkpoint}", f"num_samples={NUM}", "batch_size=8", "trainer=cpu", f"out={folder}")
        evaluate.run_evaluate(config("evaluate", *words, *POINTS, *overrides))
        run.printed = capsys.readouterr().out
        run.folder = folder
        run.csv = folder / run.printed.rpartition("table in ")[2].partition(",")[0].rpartition("/")[2]
        return csv_rows(run.csv)

    return run


def by_point(rows, column="fid_quarters_20"):
    return {(row["sampler"], int(row["steps"])): row[column] for row in rows}


def test_every_sampler_is_an_option_of_the_sweep(config):
    """One that is missing here is missing in conf/sweep/samplers.yaml."""
    sweep = config("evaluate", "sweep=samplers").sweep
    assert {*sweep.options} == {*options_of(ROOT / "conf", "sampler"), "analytic", "ddim_sigma_hat"}
    assert set(sweep.samplers) <= set(sweep.options)


def test_a_sweep_is_one_table_one_plot_and_a_result_for_each_point(swept, calls, extractors, monkeypatch):
    logged = []
    run = SimpleNamespace(log_metrics=lambda *a, **k: logged.append((*a, k)), experiment=MagicMock())
    monkeypatch.setattr("ddpm.evaluation.results.reopen_run", lambda folder: run)
    rows = swept()
    assert set(by_point(rows)) == {("ddim", 2), ("ddim", 3), ("heun", 2), ("heun", 3)}
    evaluations = by_point(rows, "evaluations")
    assert evaluations == {("ddim", 2): "2", ("ddim", 3): "3", ("heun", 2): "2", ("heun", 3): "4"}
    assert len(calls) == 3 * CALLS
    assert sum(calls) == NUM * sum(map(int, evaluations.values()))
    assert sum(each.num_seen for each in extractors) == 1797 + 4 * NUM  # the real ones once
    assert sum(each.num_seen > 0 for each in extractors) == 1
    assert all(float(row["seconds_per_image"]) > 0 and row["device"].startswith("cpu") for row in rows)
    results = [read_result(path) for path in swept.folder.glob("*.json")]
    values = sorted(result.metrics["fid_quarters_20"] for result in results)
    assert values == sorted(map(float, by_point(rows).values()))
    (best,) = [row for row in rows if row["fid_quarters_20_best"] == "true"]
    assert float(best["fid_quarters_20"]) == min(values)
    assert f"best fid_quarters_20 (lower is better): {best['sampler']} with {best['steps']} steps" in swept.printed
    assert swept.csv.with_suffix(".png").exists()
    ((numbers, place),) = logged  # in the run that made the checkpoint, opened once
    assert place == {"step": 4}
    assert numbers == {f"sweep/{s}_{n}/fid_quarters_20": float(value) for (s, n), value in by_point(rows).items()}


def test_the_same_command_again_makes_no_image_and_still_tells_the_seconds(swept, config, checkpoint, calls):
    """Nor does one of the points as an evaluation of its own, whose result is the same file."""
    first, table = swept(), swept.csv
    names = {path.name for path in swept.folder.glob("*.json")}
    calls.clear()
    assert swept() == first
    assert swept.csv == table
    words = (f"ckpt={checkpoint}", f"num_samples={NUM}", "batch_size=8", "trainer=cpu", f"out={swept.folder}")
    evaluate.run_evaluate(config("evaluate", *words, "sampler=heun", "sampler.steps=3"))
    assert {path.name for path in swept.folder.glob("*.json")} == names
    assert not calls


def test_a_killed_sweep_goes_on_where_it_was(swept, calls, monkeypatch):
    points = ("sweep.samplers=[heun]", "sweep.steps=[2,3]")
    whole = swept(*points, "keep_images=false", out="whole")
    sample, left = DiffusionModel.generate, [4]  # the three batches of the first point, and one of the second

    def killed(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModel, "generate", killed)
        with pytest.raises(BaseException):  # noqa: B017
            swept(*points)
    calls.clear()
    found = swept(*points)
    assert calls == [8] * 4 + [4] * 4  # what is left of the second point
    assert "continuing: 8 of 20 images exist" in swept.printed
    for one, other in zip(found, whole, strict=True):
        assert float(one["fid_quarters_20"]) == pytest.approx(float(other["fid_quarters_20"]), rel=1e-9)
        assert one["steps"] == other["steps"]


def test_error_bars_come_of_repeats_where_there_are_any(swept):
    (row,) = swept("num_repeats=3", "sweep.samplers=[ddim]", "sweep.steps=[2]")
    values = [read_result(path).metrics["fid_quarters_20"] for path in swept.folder.glob("*.json")]
    assert len(values) == 3
    assert float(row["fid_quarters_20"]) == pytest.approx(np.mean(values))
    assert float(row["fid_quarters_20_error"]) == pytest.approx(np.std(values, ddof=1) / 3**0.5)
    assert "mean of 3 seeds" in swept.printed


def test_the_settings_of_a_sampler_and_the_grid_of_the_command_reach_the_points(swept, checkpoint):
    """And the report reads what a sweep leaves in its run."""
    swept("sweep.options.ddim.eta=0.5", "sweep.steps=[2]", "timestep_spacing=quadratic", out="run/evaluations")
    results, unreadable = read_results(checkpoint.parents[1])
    assert not unreadable
    ddim, heun = sorted(result.subject["sampler"] for result in results)
    assert ddim == "DDIM(timestep_spacing=quadratic, eta=0.5)"
    assert heun.startswith("Heun(timestep_spacing=quadratic, ")


def test_more_steps_than_times_are_refused_before_any_image(swept, calls):
    with pytest.raises(
        ValueError, match=r"sweep: ddim with 5000 steps: sweep.options.ddim.steps must be an integer in 1..1000"
    ):
        swept("sweep.samplers=[ddim]", "sweep.steps=[2,5000]")
    assert not calls


# How long an image takes


def clocked(seconds_and_sizes, monkeypatch, record=None):
    """A clock that watched batches of these durations and sizes, on a device of two processes."""
    now = [0.0]
    monkeypatch.setattr("ddpm.generation.progress.time.perf_counter", lambda: now[0])
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=2, is_global_zero=True
    )
    clock = GenerationClock("made up", record)
    for seconds, size in seconds_and_sizes:
        batch = {"index": torch.arange(size)}
        clock.on_predict_batch_start(trainer, None, batch, 0)
        now[0] += seconds
        clock.on_predict_batch_end(trainer, None, None, batch, 0)
        now[0] += 100  # writing and measuring
    clock.on_predict_end(trainer, None)
    return clock


def test_seconds_are_of_all_batches_but_the_first_which_warms_up(monkeypatch):
    assert clocked([(9.0, 8), (2.0, 8), (1.0, 4)], monkeypatch).timing == Timing(3 / 24, 24, "made up")
    assert clocked([(9.0, 8)], monkeypatch).timing == Timing(9 / 16, 16, "made up")
    assert clocked([], monkeypatch).timing is None


def test_seconds_stay_with_the_images_and_those_of_one_device_add_up(monkeypatch, tmp_path):
    made_with = {"batch_size": 8, "device": "made up"}
    record = GenerationRecord(tmp_path, {"num_samples": 40}, made_with)
    clocked([(2.0, 8)], monkeypatch, record)
    clocked([(1.0, 4)], monkeypatch, record)
    record.write()  # as at the start of a generation that goes on
    assert record.timing() == Timing(3 / 24, 24, "made up")
    other = GenerationRecord(tmp_path, {"num_samples": 40}, {**made_with, "device": "faster"})
    other.refuse_to_mix(grows=True, has_images=True)
    clocked([(1.0, 2)], monkeypatch, other)
    assert other.timing() == Timing(3 / 24, 24, "made up")  # where more images were timed
    assert len(json.loads(record.path.read_text())["timings"]) == 2


# Measures of a model


class Weighing:
    """The sum of all weights, and which files it was given."""

    needs_checkpoint = True

    def measure(self, run):
        total = sum(p.double().sum().item() for p in run.model.weights(run.model.predict_weights).parameters())
        (run.folder).mkdir(parents=True, exist_ok=True)
        (run.folder / "weighing.txt").write_text(f"{run.ckpt.name} {run.config.schedule.num_timesteps}")
        protocol = {"num_generated": 7, "scores": {"weight": "Weighing()"}, "data": run.config.data.name}
        return Measurement({"weight": Estimate(total, 0.5)}, protocol)


class Naming:
    """Makes its own model of the configuration, if one can call it so."""

    needs_checkpoint = False

    def measure(self, run):
        assert run.model is None
        assert run.ckpt is None
        times = Estimate(float(run.config.schedule.num_timesteps))
        return Measurement({"times": times}, {"num_generated": 1, "scores": {}})


@pytest.fixture
def measures(monkeypatch):
    """Overrides that choose a measure of these."""
    for each in (Weighing, Naming):
        monkeypatch.setattr(f"ddpm.evaluation.model_metric.{each.__name__}", each, raising=False)
    return lambda name: f"+metric.mine._target_=ddpm.evaluation.model_metric.{name}"


def test_a_measure_alone_loads_no_extractor_and_makes_no_image(
    config, checkpoint, measures, calls, extractors, tmp_path, capsys
):
    evaluate.run_evaluate(config("evaluate", f"ckpt={checkpoint}", "trainer=cpu", "~metric", measures("Weighing")))
    assert not extractors
    assert not calls
    folder = tmp_path / "run" / "evaluations"
    (path,) = folder.glob("*.json")
    result = read_result(path)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    total = sum(w.double().sum().item() for name, w in weights.items() if name.startswith("averages.copies.0."))
    assert result.metrics["weight"] == pytest.approx(total)
    assert result.errors == {"weight": 0.5}
    assert (result.protocol.num_generated, result.protocol.data, result.protocol.extractor) == (7, "digits", "none")
    assert (result.subject["step"], result.subject["weights"]) == (4, "ema 0.996")
    assert (folder / "weighing.txt").read_text() == "last.ckpt 1000"
    assert "weight  " in capsys.readouterr().out
    assert not read_results(tmp_path / "run")[1]


def test_a_measure_and_a_score_go_in_one_command(config, checkpoint, measures, tmp_path):
    words = (f"ckpt={checkpoint}", "trainer=cpu", "metric=fid", "num_samples=20", "sampler.steps=2")
    evaluate.run_evaluate(
        config("evaluate", *(f"+{w}" if w.startswith("sampler") else w for w in words), measures("Weighing"))
    )
    found = [read_result(path) for path in (tmp_path / "run" / "evaluations").glob("*.json")]
    assert sorted(name for result in found for name in result.metrics) == ["fid_quarters_20", "weight"]


def test_a_measure_that_needs_no_checkpoint_is_given_the_configuration(config, measures, tmp_path):
    words = ("trainer=cpu", "~metric", "schedule=cosine", "schedule.num_timesteps=37", f"out={tmp_path / 'out'}")
    evaluate.run_evaluate(config("evaluate", *words, measures("Naming")))
    (path,) = (tmp_path / "out").glob("*.json")
    result = read_result(path)
    assert result.metrics == {"times": 37}
    assert result.subject["schedule"].startswith("cosine(num_timesteps=37")

"""What is read of run folders, and what is compared."""

import zlib

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from report.made_up import config, draw, make_run, result

from ddpm.base.nested import flatten
from ddpm.checkpoint import groups
from ddpm.config.run_settings import differing_settings, resolve_reference, run_labels
from ddpm.evaluation.table import best_rows
from ddpm.metrics.protocol import write_result
from ddpm.metrics.score import Estimate
from ddpm.report import report, settings
from ddpm.report.pictures import load_picture
from ddpm.report.results import Row, comparisons, metric_columns_of, newest_rows
from ddpm.report.runs import find_runs, read_run
from ddpm.report.series import read_series, smooth, thin
from ddpm.report.settings import CONF, derive_overrides, sweep_command, train_command
from ddpm.runs.lease import lock_folder


def flat(**changes):
    return flatten(config(**changes))


def test_runs_of_a_sweep_are_found_in_its_order_and_hidden_folders_are_passed_over(tmp_path):
    for name in ("sweep/10", "sweep/2", ".sample", "alone"):
        make_run(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in find_runs([tmp_path, tmp_path / "alone"])]
    assert found == ["alone", "sweep/2", "sweep/10"]


def test_a_folder_without_runs_is_refused_with_what_a_run_is(tmp_path):
    with pytest.raises(ValueError, match=r"contains no run: a run is a folder with checkpoints/"):
        find_runs([tmp_path])
    with pytest.raises(ValueError, match="there is no such folder"):
        find_runs([tmp_path / "typo"])


def test_a_part_that_differs_is_one_column_and_its_fields_are_its_details():
    cosine = {"_target_": "ddpm.diffusion.schedules.curves.cosine", "num_timesteps": 100, "offset": 0.008}
    found, common = differing_settings([flat(), flat(schedule=cosine)])
    assert found == {"schedule": [("linear", ""), ("cosine", "")]}  # with the fields of these options
    assert common["sampler.steps"] == "100"  # followed to what it refers to
    assert run_labels(found, ["0", "1"]) == ["schedule=linear", "schedule=cosine"]
    found, _ = differing_settings([flat(), flat(schedule={**cosine, "offset": 0.1})])
    assert found == {"schedule": [("linear", ""), ("cosine", "offset 0.1")]}


def test_a_field_that_differs_is_a_column_and_what_refers_to_it_is_none():
    longer = {"_target_": "ddpm.diffusion.schedules.betas.linear", "num_timesteps": 500, "beta_end": 0.02}
    found, _ = differing_settings([flat(), flat(schedule=longer)])
    assert {key: [value for value, _ in cells] for key, cells in found.items()} == {
        "schedule.num_timesteps": ["100", "500"]
    }


def test_runs_of_the_same_settings_are_told_apart_by_their_folders():
    assert run_labels(differing_settings([flat(), flat()])[0], ["a", "b"]) == ["a", "b"]
    found, _ = differing_settings([flat(seed=1), flat(seed=1), flat(seed=2)])
    assert run_labels(found, ["a", "b", "c"]) == ["seed=1 (a)", "seed=1 (b)", "seed=2"]


def test_of_many_settings_that_differ_those_that_tell_runs_apart_name_them():
    columns = {
        "schedule": [("linear", ""), ("linear", ""), ("cosine", ""), ("cosine", "")],
        "sampler.steps": [("10", ""), ("10", ""), ("20", ""), ("20", "")],  # tells no more than the schedule
        "objective": [("eps", ""), ("v", ""), ("eps", ""), ("v", "")],
        "weight": [("snr", ""), ("snr", ""), ("p2", ""), ("p2", "")],
    }
    expected = [f"schedule={s} objective={o}" for s in ("linear", "cosine") for o in ("eps", "v")]
    assert run_labels(columns, ["0", "1", "2", "3"]) == expected
    one_each = {f"part{n}": [(str(n == run), "") for run in range(6)] for n in range(5)}
    assert run_labels(one_each, list("abcdef")) == list("abcdef")  # all five are needed: too many for a name


def test_a_run_without_settings_does_not_make_all_settings_differ():
    assert differing_settings([flat(), {}, flat()])[0] == {}


def test_values_of_different_protocols_never_share_a_table():
    one = Row(0, result({"fid_digits_1k": 3.0, "kid_digits_1k": 0.1}))
    other = Row(1, result({"fid_digits_1k": 2.0}, protocol={"split": "test"}))
    found = comparisons([one, other])
    assert [rows for _, rows in found] == [[one], [other]]
    assert [fields["split"] for fields, _ in found] == ["train", "test"]


def test_another_score_measured_beside_it_does_not_part_a_value_from_its_like():
    alone = Row(0, result({"fid_digits_1k": 3.0}, protocol={"scores": {"fid": "FrechetDistance(layer=pool)"}}))
    both = Row(1, result({"fid_digits_1k": 2.0, "kid_digits_1k": 0.1}))
    ((_, rows),) = comparisons([alone, both])
    assert list(metric_columns_of(rows).values()) == [[(3.0, None), (2.0, None)], [None, (0.1, None)]]


def test_a_score_with_other_settings_stands_in_another_column():
    pool = Row(0, result({"fid_digits_1k": 3.0}, protocol={"scores": {"fid": "FrechetDistance(layer=pool)"}}))
    logits = Row(1, result({"fid_digits_1k": 2.0}, protocol={"scores": {"fid": "FrechetDistance(layer=logits)"}}))
    found = metric_columns_of([pool, logits])
    assert [metric for metric, _ in found] == ["fid_digits_1k"] * 2
    assert list(found.values()) == [[(3.0, None), None], [None, (2.0, None)]]


def test_the_results_of_the_last_step_of_each_way_of_sampling_are_chosen():
    early, late, other = (Row(0, result({"fid": 1.0}, step=s, sampler=n)) for s, n in ((9, "a"), (10, "a"), (1, "b")))
    of_another_metric = Row(0, result({"is": 2.0}, step=10, sampler="a"))
    assert newest_rows([late, early, of_another_metric, other]) == [late, of_another_metric, other]


def test_rows_of_a_run_are_in_the_order_of_their_numbers():
    scales = [Row(0, result({"fid": 1.0}, guidance=f"ClassifierFree(scale={scale})")) for scale in (0.5, 2, 10.0)]
    assert newest_rows(scales[::-1]) == scales


def test_best_follows_the_direction_and_near_is_two_errors_of_the_difference():
    values = [Estimate(3.0, 0.1), Estimate(3.2, 0.1), Estimate(3.3, 0.1), None, Estimate(9.0, 0.1)]
    assert best_rows(values, lower=True) == ({0}, {1})  # 2 * hypot(0.1, 0.1) = 0.28
    assert best_rows(values, lower=False) == ({4}, set())
    assert best_rows(values, lower=None) == (set(), set())


def test_broken_and_old_results_are_listed_and_the_others_read(tmp_path):
    run = make_run(tmp_path / "run")
    write_result(run / "checkpoints" / "good.json", result({"fid_digits_1k": 1.0}))
    (run / "checkpoints" / "old.json").write_text('{"metrics": {"fid": 1}, "protocol": {}}')
    (run / "checkpoints" / "cut.json").write_text('{"metrics":')
    content = (run / "checkpoints" / "good.json").read_text().replace(": 1.0", ': "high"')
    (run / "checkpoints" / "text.json").write_text(content)
    found = read_run(run)
    assert len(found.results) == 1
    assert [note.split()[0] for note in found.notes] == [f"checkpoints/{n}.json" for n in ("cut", "old", "text")]


def test_a_table_with_nan_text_and_a_torn_row_keeps_what_is_whole(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n10,1,x\n20,nan,\n30,inf,2\n40,4,3\n5")
    series = read_series(path)
    assert series.steps.tolist() == [10, 20, 30, 40]
    assert series.points("a")[1].tolist() == [1.0, 4.0]
    assert series.not_finite["a"].tolist() == [20, 30]
    assert series.points("b")[1].tolist() == [2.0, 3.0]
    assert series.unreadable == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1,2\n", b'step,a\n1,"' + b"x" * 200_000])
def test_what_is_no_table_of_steps_is_a_note_of_the_run(tmp_path, content):
    run = make_run(tmp_path / "run")
    (run / "metrics.csv").write_bytes(content)
    found = read_run(run)
    assert len(found.series.steps) == 0
    assert any("metrics.csv" in note for note in found.notes)


def test_a_run_says_its_parameters_its_minutes_and_what_it_lacks(tmp_path):
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    (empty / "metrics.csv").write_text("")
    assert read_run(empty).notes == ["Its metrics.csv has no rows yet."]
    assert read_run(empty).failure == "It ended before it logged a value."
    run = make_run(tmp_path / "one", rows=["10,1,1,1,1,,"])
    assert read_run(run).notes[0] == "It ended at step 10 of 40."
    assert "single row" in read_run(run).notes[1]
    assert (read_run(run).parameters, read_run(run).series.minutes) == (None, None)
    with lock_folder(run):
        assert read_run(run).notes[0] == "It is at step 10 of 40."
    (run / "checkpoints" / "00000017.ckpt").write_bytes(b"")
    assert read_run(run).notes[0] == "It ended at step 17 of 40."
    (run / "nonfinite").mkdir()
    (run / "nonfinite" / "00000012.pt").write_bytes(b"")
    assert read_run(run).failure == "The loss became NaN or infinite at step 12."
    (run / "train.log").write_text(
        "[now][ddpm][INFO] swirl: 1,062,564 and 648,833 (adversary) parameters, 40 steps of 32\n"
    )
    (run / "metrics.csv").write_text("step,sys/steps_per_second,sys/seconds_between_steps\n10,2,0.1\n15,,\n30,4,0.75\n")
    found = read_run(run)
    assert found.parameters == "1,062,564 and 648,833 (adversary)"
    assert found.series.minutes == pytest.approx((10 * 0.6 + 20 * 1.0) / 60)


@pytest.mark.parametrize(
    "text",
    ["a: ${oc.env:HOME}", "a: !!python/object/apply:os.system [ls]", "- a", "a: 2020-01-01", "a: " + "[" * 60_000],
)
def test_settings_that_ask_for_more_than_plain_values_are_not_read(tmp_path, text):
    run = make_run(tmp_path / "run")
    (run / "checkpoints" / "config.yaml").write_text(text)
    found = read_run(run)
    assert found.config == {}
    assert found.notes[0].startswith("Its settings cannot be read: ")


def test_a_reference_to_itself_ends(tmp_path):
    run = read_run(make_run(tmp_path / "run", name="${seed}", seed="${name}"))
    assert "${" in resolve_reference(run.config, "seed")


def test_smoothing_keeps_a_line_as_it_is_and_thinning_keeps_the_peaks():
    line = np.arange(100.0)
    np.testing.assert_allclose(smooth(line), line)
    values = np.zeros(10_000)
    values[1234], values[8765] = 5.0, -5.0
    steps, kept = thin(np.arange(10_000), values, 400)
    assert len(steps) <= 402
    assert (kept.max(), kept.min()) == (5.0, -5.0)


def test_a_picture_is_made_smaller_and_only_whole_png_is_shown(tmp_path):
    draw(tmp_path / "large.png", (1500, 300))
    found = load_picture(tmp_path / "large.png", 1200, 10**9)
    assert (found.size, found.is_scaled) == ((1200, 240), True)
    assert len(load_picture(tmp_path / "large.png", 1200, 20_000).address) < 20_000 * 4 / 3 + 100
    data = (tmp_path / "large.png").read_bytes()
    header = b"IHDR" + b"\x7f\xff\xff\xff" * 2 + data[24:29]
    huge = data[:12] + header + zlib.crc32(header).to_bytes(4) + data[33:]
    Image.new("L", (9, 9)).save(tmp_path / "gif", "GIF")
    for name, content, told in (
        ("cut", data[:5000], "truncated"),
        ("text", b"GIF", "not one of"),
        ("huge", huge, "pixels"),
    ):
        (tmp_path / name).write_bytes(content)
        assert told in load_picture(tmp_path / name, 1200, 10**9).problem
    assert "not a PNG" in load_picture(tmp_path / "gif", 1200, 10**9).problem


def test_a_command_is_quoted_for_the_shell():
    assert train_command(["name=it's", "a=$(b)"]) == """python train.py 'name=it'"'"'s' 'a=$(b)'"""


def test_a_sweep_is_one_command_only_where_every_combination_was_run():
    runs = [[f"schedule={s}", f"objective={o}", "seed=0"] for s in ("linear", "cosine") for o in ("eps", "v")]
    assert sweep_command(runs) == train_command(["-m", "schedule=linear,cosine", "objective=eps,v", "seed=0"])
    assert sweep_command(runs[:3]) == sweep_command([runs[0], ["seed=1"]]) == sweep_command([[]]) == ""


def test_a_derived_command_leads_to_the_same_settings():
    def composed(*words):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.to_container(compose("train", overrides=[*words]), resolve=False)
        return flatten({key: value for key, value in config.items() if key not in groups.group_names(stored=False)})

    wanted = composed("schedule=linear", "schedule.num_timesteps=77", "seed=3", "data=digits")
    assert composed(*derive_overrides(wanted)) == wanted


@pytest.mark.parametrize("broken", ["defaults: [data: nope]", "a: ["])
def test_a_configuration_that_cannot_be_composed_is_a_note(tmp_path, monkeypatch, broken):
    (tmp_path / "train.yaml").write_text(broken)
    for module in (report, settings):
        monkeypatch.setattr(module, "CONF", tmp_path)
    settings.default_config.cache_clear()
    make_run(tmp_path / "run", overrides=None)
    found = report.read_report([tmp_path / "run"])
    assert any("conf/ cannot be composed" in note for note in found.runs[0].notes)
    assert found.commands == [""]

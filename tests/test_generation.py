"""Generation that is killed, refused, continued and grown ends with the files of a run that nothing befell."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from small_models import trained
from small_runs import ROOT, configured

from ddpm.base import atomic
from ddpm.base.exit_codes import ProcessLost
from ddpm.base.images import to_uint8
from ddpm.commands import cli, sample
from ddpm.config import load
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.module import GenerationModule
from ddpm.generation.samples import SampleLoader
from ddpm.generation.stores import STORES


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("generation"))


@pytest.fixture
def generate(checkpoint, tmp_path):
    """`generate("a", "format=png", ...)`: what sample.py does with out=a, in this process; returns the folder."""

    def generated(name, *overrides):
        chosen = [f"ckpt={checkpoint}", "trainer=cpu", "num_samples=9", "batch_size=2"]
        keys = {each.partition("=")[0] for each in overrides}
        kept = [each for each in chosen if each.partition("=")[0] not in keys]
        config = configured("sample", tmp_path, *kept, *overrides)
        config.out = str(tmp_path / name) if name else None
        sample.run_sample(config)
        return tmp_path / (name or "")

    return generated


def files(folder):
    """Every file with its sha256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())]).astype(int)


def in_child(work):
    """Runs `work` in a copy of this process, as a kill would otherwise take the tests with it; the exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_file_operation(number, folder):
    """Just before this process opens, makes, renames, cuts or removes a file below `folder` for the number-th time."""
    left = [number]

    def watch(event, arguments):
        named = event in ("open", "os.mkdir", "os.rename", "os.remove") and str(arguments[0]).startswith(str(folder))
        if named or event == "os.truncate":
            left[0] -= 1
            if left[0] == 0:
                die()

    sys.addaudithook(watch)


@pytest.mark.parametrize("format", ["png", pytest.param("npz", marks=pytest.mark.slow)])
def test_a_kill_at_any_file_operation_changes_nothing_of_what_is_there_in_the_end(generate, tmp_path, format):
    settings = [f"format={format}", "num_samples=2", "batch_size=1"]
    expected = files(generate("whole", *settings))
    for number in range(1, 1000):
        name = f"killed{number}"

        def work(number=number, name=name):
            die_at_file_operation(number, tmp_path / name)
            generate(name, *settings)

        status = in_child(work)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert files(generate(name, *settings)) == expected, f"killed at file operation {number}"
    assert number > 12, "the operations were seen"


def test_a_kill_in_the_middle_of_a_row_does_not_make_it_whole(generate, tmp_path):
    expected = files(generate("whole", "format=npz"))
    write = os.pwrite

    def work():
        def torn(file, data, place, left=[7]):  # noqa: B006
            left[0] -= len(data) > 1
            if left[0] == 0:
                write(file, data[: len(data) // 2], place)
                die()
            return write(file, data, place)

        os.pwrite = torn
        generate("torn", "format=npz")

    assert in_child(work) == -signal.SIGKILL
    assert STORES["npz"](tmp_path / "torn", 9, (1, 8, 8)).done_mask().tolist() == [True] * 6 + [False] * 3
    assert files(generate("torn", "format=npz")) == expected


SPOILT = {
    "missing": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "another": lambda path: path.write_bytes(path.with_name("000004.png").read_bytes()),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_only_batches_that_lack_a_sample_are_made_again(generate, monkeypatch, capsys, spoil):
    expected = files(folder := generate("out", "format=png"))
    spoil(folder / "images" / "000003.png")
    made, step = [], GenerationModule.predict_step

    def watched(module, batch, batch_idx):
        made.extend(batch["index"].tolist())
        return step(module, batch, batch_idx)

    monkeypatch.setattr(GenerationModule, "predict_step", watched)
    capsys.readouterr()
    assert files(generate("out", "format=png")) == expected
    assert made == [2, 3]
    assert "continuing: 8 of 9 images exist" in (said := capsys.readouterr().out)
    assert ("1 stored images are damaged and are generated again" in said) == (spoil is not Path.unlink)


@pytest.mark.parametrize("name", ["samples.npz", "grid.png", "denoising.gif"])
def test_a_damaged_file_is_made_again_and_of_older_folders_as_far_as_it_can_be_seen(generate, name):
    """Cut, empty, with one bit flipped; and without checksums."""
    before = files(folder := generate("out", "format=npz", "gif=true"))
    half = len(data := (folder / name).read_bytes()) // 2
    for damaged in (data[:half], b"", data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :], None):
        (folder / name).write_bytes(damaged or data[: half * (damaged is None)])
        if damaged is None and before.pop("images.sums"):
            (folder / "images.sums").unlink()
        assert before.items() <= files(generate("out", "format=npz", "gif=true")).items()


def test_jpeg_files_are_the_samples_as_pillow_stores_them(generate):
    png, jpg = (generate(format, f"format={format}") / "images" for format in ("png", "jpg"))
    for number in range(9):
        stored = io.BytesIO()
        Image.open(png / f"{number:06d}.png").save(stored, "JPEG", quality=75)
        assert (jpg / f"{number:06d}.jpg").read_bytes() == stored.getvalue()


@pytest.mark.parametrize("format", ["png", "jpg", "npz"])
def test_a_finished_generation_is_left_alone_and_says_so(generate, monkeypatch, capsys, format):
    before = files(generate("out", f"format={format}"))
    monkeypatch.setattr(Trainer, "predict", lambda *_, **__: pytest.fail("there is nothing to do"))
    capsys.readouterr()
    assert files(folder := generate("out", f"format={format}")) == before
    assert "9 samples in" in (said := capsys.readouterr().out)
    assert "all of them stored before" in said
    generate("out", f"format={format}", "gif=true")
    assert set(files(folder)) - set(before) == {"denoising.gif"}, "what is asked for and missing is added"


@pytest.mark.parametrize("format", ["png", "jpg", "npz"])
def test_a_missing_grid_is_drawn_again_without_making_samples(generate, monkeypatch, format):
    expected = files(folder := generate("out", f"format={format}"))
    (folder / "grid.png").unlink()
    monkeypatch.setattr(GenerationModule, "predict_step", lambda *_: pytest.fail("all samples are there"))
    assert files(generate("out", f"format={format}")) == expected


def test_another_generation_in_the_same_folder_is_refused_field_by_field(generate):
    before = files(folder := generate("out", "format=png"))
    for overrides, fields in (
        (["seed=1"], {"seed: 0 in the folder, 1 requested"}),
        (["+sampler.steps=2", "weights=raw"], {"steps: 3 in the folder, 2", "weights: 'ema ", "weights_sha256: '"}),
        (["num_samples=8"], {"num_samples: 9 in the folder, 8 requested"}),
        (["format=npz"], {"format: 'png' in the folder, 'npz' requested"}),
        (["format=grid"], {"format: 'png' in the folder, 'grid' requested"}),
        (["+schedule.max_beta=0.5"], {"schedule.max_beta: "}),
    ):
        with pytest.raises(ValueError, match="contains another generation") as caught:
            generate("out", *(["format=png"] if not overrides[0].startswith("format") else []), *overrides)
        lines = str(caught.value).splitlines()
        assert len(lines) == 2 + len(fields)
        for field in fields:
            assert any(line.startswith(f"  {field}") for line in lines), lines
        assert lines[-1] == f"choose another folder with out=, or delete {folder}"
        assert files(folder) == before


def test_without_a_named_folder_other_settings_get_one_of_their_own(generate, checkpoint, capsys):
    run, pictures = checkpoint.parent.parent, []
    for words, named in (((), 1), (("seed=1",), 2), ((), 1), (("seed=1",), 2), (("num_samples=4",), 3)):
        generate(None, *words)
        folders = sorted(run.glob("samples_*_grid*"), key=lambda path: (len(path.name), path.name))
        pictures.append((folders[named - 1] / "grid.png").read_bytes())
        line = f"{folders[0].name} has results of other settings; these go to {folders[0].name}_{named}\n"
        assert (line in capsys.readouterr().out) == (named > 1)
        assert json.loads((folders[named - 1] / "generation.json").read_text())["seed"] == len(words) * (named == 2)
    assert pictures[:2] == pictures[2:4]
    assert len({*pictures}) == 3


def test_images_of_unknown_origin_are_refused(generate):
    folder = generate("out", "format=png")
    (folder / "generation.json").unlink()
    with pytest.raises(ValueError, match=r"has images, but no generation\.json; choose another folder with out="):
        generate("out", "format=png")
    (folder / "generation.json").write_text("[]")
    with pytest.raises(ValueError, match=r"generation\.json is not a record of sample\.py"):
        generate("out", "format=png")


def test_the_weights_are_known_by_what_they_are_and_not_by_where_they_lie(generate, checkpoint, tmp_path):
    before = files(generate("out", "format=png"))
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(checkpoint.read_bytes())
    assert files(generate("out", "format=png", f"ckpt={moved}", "weights=ema")) == before


def test_a_folder_of_pngs_grows_into_that_of_a_longer_generation(generate):
    generate("grown", "format=png", "num_samples=5", "gif=true")
    assert files(generate("grown", "format=png", "num_samples=9")) == files(generate("long", "format=png"))


def test_an_archive_does_not_grow(generate):
    generate("out", "format=npz", "num_samples=5")
    with pytest.raises(ValueError, match="num_samples: 5 in the folder, 9 requested"):
        generate("out", "format=npz")


def test_another_batch_size_continues_and_says_that_images_may_be_rounded_otherwise(generate, capsys):
    whole = generate("whole", "format=png")
    folder = generate("out", "format=png", "num_samples=4")
    capsys.readouterr()
    generate("out", "format=png", "batch_size=5")
    said = capsys.readouterr().out
    assert "may differ by rounding from those of an uninterrupted run: batch_size 2 before, 5 now" in said
    assert np.abs(pixels(folder) - pixels(whole)).max() <= 1
    made_with = json.loads((folder / "generation.json").read_text())["made_with"]
    assert [each["batch_size"] for each in made_with] == [2, 5]


CANNOT = {
    errno.ENOSPC: "has no room left",
    errno.EACCES: "cannot be read or written",
    errno.EROFS: "cannot be read or written",
    errno.EIO: "cannot be read or written",
}


@pytest.mark.parametrize("format", ["png", "npz"])
@pytest.mark.parametrize(("number", "what"), CANNOT.items())
def test_a_failed_write_is_one_error_that_counts_kept_samples_and_the_same_command_continues(
    generate, monkeypatch, format, number, what
):
    expected = files(generate("whole", f"format={format}"))
    left = [14]

    def full(function):
        def failing(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))
            return function(*arguments)

        return failing

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", full(os.replace))
        patch.setattr(os, "pwrite", full(os.pwrite))
        patch.setattr(Path, "write_bytes", full(Path.write_bytes))
        with pytest.raises(
            ValueError, match=rf"out=.* {what} \({os.strerror(number)}.*: .*out/?.*\): [3-6] of 9 samples are kept; "
        ):
            generate("out", f"format={format}")
    assert files(generate("out", f"format={format}")) == expected


@pytest.mark.parametrize("error", [RuntimeError("DataLoader worker (pid 1) exited"), ProcessLost("gone")])
def test_a_fault_within_a_generation_is_reported_with_the_number_of_kept_samples(generate, monkeypatch, capsys, error):
    make, left = GenerationModule.predict_step, [2]

    def failing(module, batch, number):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return make(module, batch, number)

    monkeypatch.setattr(GenerationModule, "predict_step", failing)
    with pytest.raises(type(error)) as raised:
        generate("out", "format=png")
    with pytest.raises(SystemExit):
        cli.exit_with_error(str(raised.value), raised.value)
    assert f"{error}\n4 of 9 samples are kept; run the same command again to continue\n" in capsys.readouterr().err


def test_a_grid_of_more_samples_than_it_shows_is_refused_before_any_is_made(generate, tmp_path):
    with pytest.raises(ValueError, match=r"num_samples must be at most 400 .* choose format=png or npz, got 401"):
        generate("out", "format=grid", "num_samples=401")
    assert not (tmp_path / "out").exists()


def test_a_grid_alone_is_drawn_anew_each_time_but_not_over_one_of_other_settings(generate):
    first = files(generate("out", "format=grid"))
    assert set(first) == {"generation.json", "grid.png"}
    assert files(generate("out", "format=grid")) == first
    with pytest.raises(ValueError, match=r"another generation:\n  seed: 0 in the folder, 1 requested"):
        generate("out", "format=grid", "seed=1")
    assert files(generate("png", "format=png"))["grid.png"] == first["grid.png"]


# Real processes


def started(checkpoint, folder, *overrides):
    """sample.py in a session of its own, so that all of its processes can be killed at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sample.py"), f"ckpt={checkpoint}", f"out={folder}", "trainer=cpu", *overrides],
        cwd=folder.parent, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill_halfway(process, store):
    """SIGKILL to all of its processes, once some samples are there."""
    deadline = time.monotonic() + 120
    while (done_mask := int(store.done_mask().sum())) < store.num_samples // 10:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert done_mask < store.num_samples


def continued(process, store):
    found = int(store.done_mask().sum())
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return f"continuing: {found:,} of {store.num_samples:,} images exist" in output


@pytest.mark.slow
@pytest.mark.parametrize("format", ["png", "npz"])
def test_a_killed_command_that_is_typed_again_ends_with_the_same_files(generate, checkpoint, tmp_path, format):
    settings = [f"format={format}", "num_samples=301", "batch_size=4"]
    store = STORES[format](tmp_path / "killed", 301, (1, 8, 8))
    kill_halfway(started(checkpoint, store.folder, *settings), store)
    assert 0 < store.done_mask().sum() < 301
    assert not (store.folder / "grid.png").exists()
    assert continued(started(checkpoint, store.folder, *settings), store)
    assert files(store.folder) == files(generate("whole", *settings))


@pytest.mark.slow
def test_two_processes_that_are_killed_continue_with_the_batches_that_each_lacks(checkpoint, tmp_path):
    """Against the samples of each rank's batches, made here one after the other."""
    settings = ["format=png", "num_samples=201", "batch_size=4", "trainer.devices=2"]
    store = STORES["png"](tmp_path / "killed", 201, (1, 8, 8))
    kill_halfway(started(checkpoint, store.folder, *settings), store)
    assert 0 < store.done_mask().sum() < 201
    for number in range(0, 201, 2):  # now the first rank lacks far more than the second
        store.path(number).unlink(missing_ok=True)
    assert continued(started(checkpoint, store.folder, *settings), store)

    config = configured("sample", tmp_path, f"ckpt={checkpoint}")
    module, _ = load.from_checkpoint(checkpoint, load.changes(config))
    other = STORES["png"](tmp_path / "whole", 201, module.image_shape)
    other.folder.mkdir()
    other.begin()
    with torch.no_grad():
        for rank in (0, 1):
            for batch in SampleLoader(201, 4, rank=rank, world_size=2):
                images = to_uint8(module.generate(batch["index"], "ema")).permute(0, 2, 3, 1).numpy()
                for number, image in zip(batch["index"].tolist(), images, strict=True):
                    other.write(number, image)
    ImageWriter(other, None).finish()
    assert files(other.folder) == {k: v for k, v in files(store.folder).items() if k != "generation.json"}

"""Runs that stop and go on: the same to the bit, refused when the circumstances changed, unharmed by broken files."""

import csv
import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from precision import assert_rounded

from ddpm.base.exit_codes import DISK_FULL, exit_code
from ddpm.checkpoint import folder as files
from ddpm.checkpoint.writing import AtomicCheckpointIO, sidecar
from ddpm.commands import train
from ddpm.commands.verify_resume import compare_runs

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHORT = ("logger=csv", "data.num_train=64", "data.num_val=32", "model.base_channels=4", "model.num_groups=2")
RUN = (*SHORT, "trainer.max_steps=10", "checkpoint_every_n_steps=1", "keep.last=20", "model.dropout=0.1")


def forget_after(folder, step):
    """The folder as a run leaves it that is killed after the checkpoint of `step`."""
    for path in files.list_checkpoints(folder / "checkpoints"):
        if files.step_of(path) > step:
            files.remove(path)


@pytest.fixture
def stopped(copied, tmp_path):
    """`stopped(at, *overrides)`: a run of ten steps of which only the checkpoints up to `at` are left."""

    def run(at, *overrides):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        forget_after(folder := copied(*RUN, *overrides), at)
        return folder

    return run


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(
            (
                "trainer.accumulate_grad_batches=2",
                "trainer.log_every_n_steps=3",
                "ema.decay=[0.9,0.99]",
                "ema.start_step=6",
            ),
            marks=pytest.mark.slow,
        ),
        ("data.memory_limit_mb=0", "data.num_workers=2", "sample_every_n_steps=2", "trainer.val_check_interval=2"),
    ],
)
def test_a_run_resumed_at_any_step_is_the_same_as_one_without_a_break(small, stopped, run_of, overrides):
    """An epoch has four steps: 4 and 8 are followed by a validation, which the resumed run has to make up for."""
    for step in (1, 4, 7, 8, 10):
        resumed = stopped(step, *overrides)
        train.run_train(small(*RUN, *overrides, "resume.path=auto"))
        assert not any(compare_runs(run_of(*RUN, *overrides), resumed).values()), step


def test_resumed_twice_first_at_the_end_of_an_epoch(small, copied, run_of):
    """Lightning's own counts are one epoch short after the first resume, and the second then starts the epoch anew."""
    resumed = copied(*RUN)
    for step in (4, 6, 8, 9):
        forget_after(resumed, step)
        train.run_train(small(*RUN, "resume.path=auto"))
        assert not any(compare_runs(run_of(*RUN), resumed).values()), step


def test_auto_begins_a_new_run_where_there_is_none_and_says_so(small, capsys):
    train.run_train(small(*RUN, "resume.path=auto", "trainer.max_steps=1"))
    assert "starting a new one" in capsys.readouterr().out


def test_a_finished_run_is_left_as_it_is(small, copied, tmp_path, capsys):
    copied(*RUN)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    train.run_train(small(*RUN, "resume.path=auto"))
    assert "nothing is left to train" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


# Changed circumstances


def test_other_settings_are_refused_field_by_field(small, stopped):
    stopped(4)
    with pytest.raises(ValueError, match="was trained with other settings") as refused:
        train.run_train(
            small(*RUN, "resume.path=auto", "data.batch_size=32", "trainer.accumulate_grad_batches=2", "seed=1")
        )
    assert "  data.batch_size: 16 -> 32\n  seed: 0 -> 1\n  trainer.accumulate_grad_batches: 1 -> 2\n" in str(
        refused.value
    )
    assert "'resume.allow=[data.batch_size,seed,trainer.accumulate_grad_batches]'" in str(refused.value)
    assert "ema.batch_size" not in str(refused.value)  # it only repeats the data's


def test_a_longer_run_is_another_one_only_where_the_rate_falls_to_its_end(small, stopped):
    longer = ("resume.path=auto", "trainer.max_steps=11")
    stopped(10)
    with pytest.raises(ValueError, match=r"trainer\.max_steps: 10 -> 11"):
        train.run_train(small(*RUN, *longer))
    stopped(10, "optimizer.cosine_decay=false")
    train.run_train(small(*RUN, "optimizer.cosine_decay=false", *longer))


def test_an_unknown_name_in_allow_is_refused_with_the_nearest(small, stopped):
    stopped(4)
    with pytest.raises(ValueError, match=r"'data.batch_sise'; did you mean 'data.batch_size'\?"):
        train.run_train(small(*RUN, "resume.path=auto", "resume.allow=[data.batch_sise]"))


def test_other_images_are_refused_by_their_content(small, stopped):
    stopped(4)
    others = ("resume.path=auto", "data.flip=false", "data.source.path=nowhere")
    with pytest.raises(
        ValueError, match=r"data\.content: [0-9a-f]{64} -> [0-9a-f]{64}.*resume\.allow=\[data\.content\]"
    ):
        train.run_train(small(*RUN, others[0], "data.num_val=33", "resume.allow=[data.num_val]"))
    train.run_train(small(*RUN, others[0], "data.num_val=33", "resume.allow=[data.num_val,data.content]"))


@pytest.mark.parametrize("step", [3, 4, 6])
def test_another_accumulation_of_the_same_batch_goes_on_with_the_same_images(small, stopped, run_of, step):
    """To rounding, and without dropout, whose draws belong to a micro-batch. Adam's large eps keeps rounding small."""
    smooth = ("optimizer.eps=1.0", "optimizer.lr=1.0e-2", "model.dropout=0")
    whole, run = run_of(*RUN, *smooth), stopped(step, *smooth)
    changed = ("trainer.accumulate_grad_batches=4", "resume.allow=[trainer.accumulate_grad_batches]")
    train.run_train(small(*RUN, *smooth, "resume.path=auto", *changed))
    one, other = (torch.load(each / "checkpoints" / "last.ckpt") for each in (whole, run))
    assert one["ImageDataModule"] == other["ImageDataModule"]
    for key, value in one["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert_rounded(other["state_dict"][key], value, 20, scale=1)


def test_another_batch_size_goes_on_at_the_next_whole_batch(small, stopped):
    run = stopped(1)
    train.run_train(small(*RUN, "resume.path=auto", "data.batch_size=32", "resume.allow=[data.batch_size]"))
    state = torch.load(run / "checkpoints" / "00000002.ckpt")["ImageDataModule"]["train_loader"]
    assert state == {"epoch": 1, "images": 0}  # 16 images, rounded up to 32, and 32 more, are all of the 64


# Files


def damaged_by(how, path):
    data = bytearray(path.read_bytes())
    if how == "a flipped bit":
        data[len(data) // 2] ^= 1
    else:
        del data[-1000:]
    path.write_bytes(data)


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("how", ["a flipped bit", "truncated"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(small, copied, run_of, capsys, how, hashed):
    run = copied(*RUN)
    last = run / "checkpoints" / "00000010.ckpt"
    damaged_by(how, last)
    if not hashed:
        sidecar(last).unlink()
    with pytest.warns(UserWarning, match="00000010.ckpt cannot be used: .* Using the previous one"):
        train.run_train(small(*RUN, "resume.path=auto"))
    assert "00000009.ckpt, at step 9" in capsys.readouterr().out
    assert not any(compare_runs(run_of(*RUN), run).values())


def test_a_damaged_checkpoint_that_was_asked_for_by_name_is_refused(small, stopped):
    run = stopped(4)
    damaged_by("a flipped bit", run / "checkpoints" / "00000004.ckpt")
    with pytest.raises(ValueError, match=r"is damaged: its sha256 .*the newest intact one is .*00000003\.ckpt"):
        train.run_train(small(*RUN, f"resume.path={run / 'checkpoints' / '00000004.ckpt'}"))


def test_the_last_every_so_many_and_the_best_are_kept(small, tmp_path):
    keep = ("keep.last=2", "keep.every_n_steps=3", "keep.best=val/loss", "trainer.val_check_interval=2")
    config = small(*SHORT, "trainer.max_steps=10", "checkpoint_every_n_steps=1", *keep, "optimizer.lr=0")
    train.run_train(config)  # at a rate of 0 the first validation is the best, since no later one is better
    folder = tmp_path / "run" / "checkpoints"
    assert [files.step_of(path) for path in files.list_checkpoints(folder)] == [10, 9, 6, 3, 2]
    assert os.readlink(folder / "best.ckpt") == "00000002.ckpt"
    assert os.readlink(folder / "last.ckpt") == "00000010.ckpt"
    assert {path.name for path in folder.glob("*.sha256")} == {
        f"{p.name}.sha256" for p in files.list_checkpoints(folder)
    }


def test_a_checkpoint_kept_by_a_number_that_nobody_logs_is_an_error(small):
    with pytest.raises(ValueError, match=r"keep\.best must be one of val/loss, got 'val/los'; did you mean"):
        train.run_train(small(*SHORT, "keep.best=val/los", "trainer.val_check_interval=2"))


def test_a_full_disk_leaves_the_last_good_checkpoint_and_no_part_of_another(tmp_path):
    """A limit on the size of files stands for the disk: the kernel refuses the write in the same place."""
    target = tmp_path / "00000002.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"weights": torch.ones(10)}, tmp_path / "00000001.ckpt")
    assert writer.failure is None
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        writer.save_checkpoint({"weights": torch.ones(1_000_000)}, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert writer.failure
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001.ckpt", "00000001.ckpt.sha256"]
    assert files.newest_intact(tmp_path).name == "00000001.ckpt"


def test_a_run_goes_on_when_a_checkpoint_cannot_be_written_and_stops_when_it_is_the_last(small, tmp_path, monkeypatch):
    written = AtomicCheckpointIO.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        written(self, checkpoint, path)
        if checkpoint["global_step"] > 2:
            files.remove(Path(path))
            self.failure = OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full)
    with (
        pytest.warns(
            UserWarning, match=r"step 3: no checkpoint could be written \(.*No space left.*good.*00000002\.ckpt"
        ),
        pytest.raises(OSError, match=r"the last checkpoint could not be written; .*good .*00000002\.ckpt") as raised,
    ):
        train.run_train(small(*SHORT, "checkpoint_every_n_steps=1"))
    assert exit_code(raised.value) == DISK_FULL
    with open(tmp_path / "run" / "metrics.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


# Layouts


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [(1, ["data.num_val=0", "trainer.accumulate_grad_batches=2"]), (2, [])],  # layout 1: within an epoch
)
def test_a_checkpoint_of_any_layout_goes_on_as_it_would_have_then(small, run_of, tmp_path, layout, overrides):
    """The fixtures were written by the code of their time after 3 of 6 steps, and are kept for the code to come."""
    then = (*SHORT, "model.attention_levels=[]", "trainer.max_steps=6", "sample_every_n_steps=100", *overrides)
    with pytest.warns(UserWarning, match=r"metrics.csv does not exist, so it gets the values after step 3 only"):
        train.run_train(small(*then, f"resume.path={FIXTURES / f'checkpoint_format_{layout}.ckpt'}"))
    whole, resumed = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (run_of(*then), tmp_path / "run")
    )
    assert resumed["format"] == 3
    assert resumed["ImageDataModule"] == whole["ImageDataModule"]
    for key, value in whole["state_dict"].items():
        if isinstance(value, torch.Tensor):  # other kernels round differently, which Adam's division magnifies
            assert_rounded(resumed["state_dict"][key], value, 100, scale=1)


def test_a_later_layout_is_refused(small, stopped):
    run = stopped(2)
    stored = torch.load(run / "checkpoints" / "00000002.ckpt")
    AtomicCheckpointIO().save_checkpoint(stored | {"format": 99}, run / "checkpoints" / "00000002.ckpt")
    with pytest.raises(ValueError, match="a checkpoint of layout 99 needs a later version of ddpm"):
        train.run_train(small(*RUN, "resume.path=auto"))


# What a review found


def test_a_rate_that_may_change_does_change(small, stopped):
    run = stopped(4, "optimizer.cosine_decay=false", "optimizer.warmup_steps=0")
    settings = ("optimizer.cosine_decay=false", "optimizer.warmup_steps=0", "optimizer.lr=1.0e-5")
    train.run_train(
        small(*RUN, *settings, "resume.path=auto", "resume.allow=[optimizer.lr]", "trainer.log_every_n_steps=1")
    )
    with open(run / "metrics.csv") as file:
        rates = {row["step"]: float(row["train/lr"]) for row in csv.DictReader(file)}
    assert rates["4"] == pytest.approx(3e-3)
    assert rates["10"] == pytest.approx(1e-5)


def test_a_run_that_went_back_in_its_folder_goes_on_from_there(small, stopped):
    """Checkpoints of the branch it left are set aside, or `auto` would take the newest of them."""
    run = stopped(8)
    back = run / "checkpoints" / "00000003.ckpt"
    train.run_train(small(*RUN, f"resume.path={back}", "trainer.max_steps=5", "resume.allow=[trainer.max_steps]"))
    assert [files.step_of(path) for path in files.list_checkpoints(run / "checkpoints")] == [5, 4, 3, 2, 1]
    assert (run / "checkpoints" / "00000008.ckpt.aside").exists()


def test_a_run_that_keeps_no_checkpoints_leaves_a_checkpoint_that_can_be_resumed(small, tmp_path):
    train.run_train(small("callbacks.checkpoint=null", "optimizer.cosine_decay=false", "trainer.max_steps=2"))
    train.run_train(small("optimizer.cosine_decay=false", "resume.path=auto"))
    assert files.step_of(files.list_checkpoints(tmp_path / "run" / "checkpoints")[0]) == 4

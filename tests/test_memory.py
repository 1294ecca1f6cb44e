"""The size of what a file or a setting asks for is held against the memory that is there before any is taken."""

import functools
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_models import trained
from small_runs import ROOT, SMALL, configured

from ddpm.base import memory
from ddpm.base.memory import available_bytes, require_memory
from ddpm.base.untrusted import json_file, load_tensors
from ddpm.commands import sample, train
from ddpm.commands.options import options_of
from ddpm.data.open_image import open_image
from ddpm.data.sources.npz import Npz
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.zip import Zip
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.schedules.betas import linear
from ddpm.metrics.statistics import read_arrays
from ddpm.networks import UNet
from ddpm.networks.caption_unet import CaptionUNet

FEW = 10_000


def zip_of_images(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2 * FEW))
    Zip(str(path)).open().image(0)


def zip_with_labels(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"")
        archive.writestr("dataset.json", b" " * 2 * FEW)
    Zip(str(path)).open()


def pixels(path):
    np.savez_compressed(path, np.zeros((1, 100, 200, 1), np.uint8))
    Npz(f"{path}.npz").open()


def statistics(path):
    np.savez_compressed(path, mu=np.zeros(2 * FEW))
    read_arrays(path.with_suffix(".npz"), {"mu"})


def parquet(path):
    pq.write_table(pa.table({"image": [os.urandom(2 * FEW)]}), path)
    Parquet(str(path)).open()


def weights(path):
    torch.save(torch.zeros(FEW), path)
    load_tensors(path)


def hole(path):
    with open(path, "wb") as file:
        file.truncate(2**40)  # it takes no space


def image(path):
    hole(path)
    open_image(path)


def text(path):
    hole(path)
    json_file(path)


ASKING = {
    **{reader.__name__: reader for reader in (zip_of_images, zip_with_labels, pixels, statistics, parquet, weights)},
    **{reader.__name__: reader for reader in (image, text)},
    "a schedule": lambda path: linear(10**12, 1e-4, 0.02, False),
    "words": lambda path: CaptionUNet(
        3, 10**12, 4, 8, base_channels=8, channel_mults=[1], num_res_blocks=1, num_groups=4
    ),
    "blocks": lambda path: UNet(3, 8, [1, 2], 10**12, num_groups=4),
    "layers": lambda path: UNet(3, 8, [1, 2], 1, num_groups=4, transformer_depth=10**12),
}


@pytest.mark.parametrize("name", ASKING)
def test_what_does_not_fit_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: FEW)
    with pytest.raises(ValueError, match=r"GB of memory, but only 0\.0 GB are available"):
        ASKING[name](tmp_path / "a")


def test_the_memory_that_is_there_is_no_more_than_the_machine_has():
    assert 0 < available_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    require_memory(available_bytes() // 2, "half of it")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_all_control_groups_above_a_process_count(tmp_path, version):
    """As a batch system, a container and systemd set them: 5,000 of a job's 7,000 bytes are used, 900 by a cache."""
    (tmp_path / "groups").write_text("0::/job/step\n" if version == 2 else "9:cpu:/\n5:memory:/job/step\n")
    root = tmp_path / "root"
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    top = root if version == 2 else root / "memory"
    for folder, limit in ((top / "job", "7000"), (top / "job/step", "max" if version == 2 else str(2**63 - 4096))):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip((*names, "memory.stat"), (limit, "5000", "anon 4100\ninactive_file 900"), strict=True):
            (folder / name).write_text(text)
    assert min(memory.group_bytes(tmp_path / "groups", root)) == 7000 - 5000 + 900
    assert [*memory.group_bytes(tmp_path / "none", root)] == []


@pytest.mark.parametrize("label", [10_000_000, 2**31 - 1])
def test_a_label_that_numbers_no_class_is_refused_before_any_weight(config, tmp_path, label):
    np.savez(tmp_path / "four.npz", np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 2, label]))
    words = ("data=npz", f"data.source.path={tmp_path / 'four.npz'}", "data.size=8", "data.channels=1", "cond=class")
    with pytest.raises(ValueError, match=f"label {label:,}, which would make {label + 1:,} classes of 4 images"):
        train.run_train(config("train", *SMALL, *words, "data.batch_size=2", f"run_dir={tmp_path / 'run'}"))


def test_weights_that_do_not_fit_are_named_before_they_are_made(small, monkeypatch):
    """One convolution of 512 channels has 4 * 9 * 512^2 = 9.4 MB, more than tables and images."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * 9 * 512**2)
    with pytest.raises(ValueError, match=r"model=UNet, with .* GB in .*weight, takes .* GB of memory, but only"):
        train.run_train(small("model.base_channels=512", "model.num_groups=4"))


@pytest.mark.parametrize("part", ["optimizer_states", "loops", "callbacks", "batches", "global_step"])
def test_a_checkpoint_without_a_part_of_its_training_resumes_no_run(small, run_of, tmp_path, part):
    stored = torch.load(run_of() / "checkpoints/last.ckpt", weights_only=True)
    del stored[part]
    torch.save(stored, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match=f"not what a training needs to continue: {part}"):
        train.run_train(small(f"resume.path={tmp_path / 'bare.ckpt'}"))


def test_images_too_large_to_generate_are_refused_before_they_are_allocated(run_of, config, monkeypatch):
    """A small checkpoint may ask for images of any size. 64 images of 2,000 x 2,000 numbers are 1 GB."""
    monkeypatch.setattr(sample.Trainer, "predict", lambda *_, **__: pytest.fail("it began"))
    monkeypatch.setattr(memory, "available_bytes", lambda: 6 * 10**9)
    ckpt = run_of() / "checkpoints" / "last.ckpt"
    told = r"a batch of 64 images of 1 x 2000 x 2000 \(batch_size, data.size\) takes .* GB of memory, but only 6.0 GB"
    with pytest.raises(ValueError, match=told):
        sample.run_sample(config("sample", f"ckpt={ckpt}", "size=2000"))


def in_little_memory(monkeypatch):
    """When a task asks, 250 bytes are left; an image of 8 x 8 numbers takes 256. The network waits."""
    require = sample.require_memory_for_images

    def required(*about):
        monkeypatch.setattr(memory, "available_bytes", lambda: 250)
        require(*about)

    monkeypatch.setattr(sample, "require_memory_for_images", required)
    monkeypatch.setattr(NetworkDenoiser, "__call__", lambda *_: pytest.fail("it began"))


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """`model_of("cond=low_res")`: a checkpoint, trained once for all tasks."""
    words = ("data.channels=3", "data.num_val=40")
    return functools.cache(lambda *more: trained(tmp_path_factory.mktemp("model"), *words, *more))


@pytest.mark.parametrize("task", sorted({*options_of(ROOT / "conf", "task")} - {"generate", "label_maps"}))
def test_a_task_whose_images_do_not_fit_is_refused_before_the_network_is_called(model_of, tmp_path, monkeypatch, task):
    """task=label_maps: in test_spatial_conditions.py."""
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    upsamples = task in ("upsample", "upsample_files", "cascade")
    words = [f"task.small={tmp_path}"] if task == "upsample_files" else []
    if task == "cascade":
        words = [f"task.base={model_of('data.size=4', 'data.resize=box', 'model.channel_mults=[1]')}"]
    words += [f"ckpt={model_of(*['cond=low_res'] * upsamples)}", f"task={task}", "trainer=cpu"]
    words += ["sampler=ddim" if task == "invert" else "sampler=ancestral"]
    config = configured("sample", tmp_path, *words)
    in_little_memory(monkeypatch)
    with pytest.raises(ValueError, match=r"images of 3 x [48] x [48] \(.*\) takes .* GB of memory"):
        sample.run_sample(config)

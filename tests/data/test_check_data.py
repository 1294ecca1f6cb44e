"""ddpm check-data: what it counts is what lies there, and its verdict is that of a training."""

import io
import json
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image, ImageCms

from ddpm.commands import check_data, cli
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.sources.base import ArrayImages
from ddpm.data.sources.folder import Folder
from ddpm.data.survey import bits_of, survey


@pytest.fixture
def typed(monkeypatch, tmp_path, capsys):
    """`typed("data=mnist")`: what the command prints in tmp_path, and its exit code."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ddpm check-data", *arguments])
        GlobalHydra.instance().clear()
        try:
            cli.run_command(check_data.main, check_data.CONF, "check_data")
            code = 0
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return printed.out + printed.err, code

    return run


def entries(text):
    """The lines of a page by what they are about."""
    found, key = {}, ""
    for line in text.splitlines():
        if line.startswith("  "):
            key = line[2:15].strip() or key
            found.setdefault(key, []).append(line[16:])
    return found


def test_the_numbers_of_a_survey_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(3, 250, (300, 6, 5, 3), dtype=np.uint8)
    pixels[7] = pixels[250] = pixels[3]
    images = ArrayImages("own", pixels, torch.full((300,), -1), ())
    shown = []
    for num_workers in (0, 2):
        found = survey(Decoder(images, Preparation(3, (6, 5))), 3, num_workers, shown.append, batch_size=64)
        values = pixels.astype(np.float64) / 127.5 - 1
        low, high, mean, deviation = (each.numpy() for each in found.moments())
        np.testing.assert_array_equal(low, values.min((0, 1, 2)))
        np.testing.assert_array_equal(high, values.max((0, 1, 2)))
        np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(deviation, values.std((0, 1, 2)), rtol=1e-12)
        assert found.duplicates() == [[3, 7, 250]]
        assert found.stored == {((6, 5), "array", 8): 300}
    assert shown == [64, 128, 192, 256, 300] * 2


def test_bits_are_those_of_the_file_also_where_pillow_reads_fewer(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # one pixel of 16 bits in colour
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(png)).mode == "RGB"
    assert bits_of(Image.open(io.BytesIO(png))) == 16
    for mode, bits in {"1": 1, "L": 8, "P": 8, "RGB": 8, "I;16": 16, "F": 32, "I": 32}.items():
        assert bits_of(Image.new(mode, (2, 2))) == bits


@pytest.fixture
def folder(tmp_path):
    """30 images of three classes in two sizes and modes, and all that can be wrong with a folder."""
    rng = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / "own" / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 9 if number < 4 else 8, 3), dtype=np.uint8)
        Image.fromarray(pixels[..., 0] if number % 5 == 0 else pixels).save(path)
    (tmp_path / "own" / "a" / "copy.png").write_bytes((tmp_path / "own" / "b" / "07.png").read_bytes())
    return tmp_path / "own"


def test_a_folder_is_described_as_training_would_read_it(typed, folder):
    (folder / "c" / "x.heic").write_bytes(b"\0")
    words = ("data=folder", f"data.source.root={folder}", "data.size=8", "data.resize=box", "data.batch_size=4")
    text, code = typed(*words, "data.num_val=5", "data.num_workers=0")
    found = entries(text)
    assert code == 0
    assert found["images"] == ["31"]
    assert found["sizes"] == ["height x width", "8 x 8: 27", "8 x 9: 4"]
    assert found["modes"] == ["RGB: 25", "L: 6"]
    assert found["bit depth"] == ["8: 31"]
    assert found["classes"] == ["3 classes (a: 11, b: 10, c: 10)"]
    assert found["duplicates"][1:] == [f"{folder}/a/copy.png = {folder}/b/07.png"]
    assert found["passed over"] == ["1 other files (1 .heic)"]
    assert found["splits"] == ["train 26, val 5, test 0"]
    settings = {"size": 8, "resize": "box", "batch_size": 31, "name": "x", "channels": 3}
    (batch,) = ImageDataModule(Folder(str(folder)), **settings).eval_loader()
    for line, channel in zip(found["values"][1:], batch["image"].double().unbind(1), strict=True):
        assert f"mean {channel.mean():.4f}, std {channel.std(unbiased=False):.4f}" in line
    assert Image.open(folder.parent / "data_checks" / "folder.png").width > 1000


def test_what_would_stop_a_training_is_said_and_all_of_it(typed, folder):
    whole = (folder / "a" / "03.png").read_bytes()
    (folder / "a" / "03.png").write_bytes(whole[:70])
    words = ("data=folder", f"data.source.root={folder}", "data.size=8", "data.num_workers=0")
    text, code = typed(*words, "data.resize=null")
    assert code != 0
    assert "not usable    4:" in text
    for message in (
        "3 of 31 images do not fit",
        "Remedy: set data.resize",
        "1 of 31 images cannot be used",
        "03.png: ",
    ):
        assert message in text.partition("would stop")[2]
    text, code = typed(*words, "data.on_broken=skip", "data.batch_size=4")
    assert code == 0, "a training of one's own images resizes them"


def test_images_of_both_splits_are_counted(typed, folder, tmp_path):
    for split in ("train", "test"):
        for name in "abc":
            (tmp_path / "both" / split / name).mkdir(parents=True)
            source = sorted((folder / name).glob("*.png"))[-1 if split == "train" or name == "a" else -2]
            (tmp_path / "both" / split / name / source.name).write_bytes(source.read_bytes())
    words = ("data=folder", f"data.source.root={tmp_path / 'both'}", "data.size=8", "data.num_workers=0")
    text, code = typed(*words, "data.batch_size=2")
    assert code == 0
    assert entries(text)["in both"] == ["1 test images have exactly the pixels of a training image"]
    assert entries(text)["splits"] == ["train 3, val 0, test 3"]


def test_images_without_a_label_and_what_labels_could_be_are_named(typed, folder, tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    rows = {"image": [buffer.getvalue()] * 3, "label": ["a", None, "b"], "tone": [1, 2, 3]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    words = ("data=parquet", f"data.source.path={tmp_path / 'a.parquet'}", "data.size=8", "data.batch_size=1")
    text, code = typed(*words, "data.num_workers=0")
    assert code == 0
    assert entries(text)["without label"] == ["1:", f"  {tmp_path}/a.parquet row 1: has no label"]
    pq.write_table(pa.table({**rows, "label": [[1.0], [2.0], [3.0]]}), tmp_path / "a.parquet")
    text, _ = typed(*words, "data.num_workers=0")
    (line,) = entries(text)["classes"]
    assert line.startswith("no labels: label is a column of list<")
    assert "; data.labels can be one of tone" in line


@pytest.mark.parametrize(
    "words",
    [
        ("data=mnist",),
        ("data=swirl", "data.source.num_points=200"),
        ("data=npz", "data.source.path={folder}/../a.npz", "data.size=8"),
        ("data=zip", "data.source.path={folder}/../a.zip", "data.size=8", "data.resize=box"),
    ],
    ids=lambda words: words[0],
)
def test_every_source_can_be_looked_at(typed, folder, words):
    np.savez(folder.parent / "a.npz", np.zeros((70, 8, 8, 3), np.uint8), np.arange(70) % 3)
    with zipfile.ZipFile(folder.parent / "a.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("dataset.json", json.dumps({"labels": None}))
    text, code = typed(*(word.format(folder=folder) for word in words), "data.num_workers=0", "data.batch_size=8")
    assert code == 0
    found = entries(text)
    files = words[0] == "data=zip"
    assert (found["modes"] == ["RGB: 25", "L: 6"]) == files
    assert found["modes"][0].startswith("does not apply") != files
    assert found["sizes"][0].startswith("does not apply") == (words[0] == "data=swirl")
    assert (folder.parent / "data_checks" / f"{words[0][5:]}.png").exists()


@pytest.mark.parametrize("form", ["gif", "webp", "png", "tiff"])
def test_files_of_several_frames_are_counted_apart(tmp_path, form):
    """The first is read."""
    first, *others = (Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue"))
    first.save(tmp_path / f"a.{form}", save_all=True, append_images=others, lossless=True)
    first.save(tmp_path / f"b.{form}", lossless=True)
    images = Folder(str(tmp_path)).open()
    found = survey(Decoder(images, Preparation(3, (4, 4))), 3, 0, lambda done: None)
    modes = sorted(mode for _, mode, _ in found.stored)
    assert [", the first of several frames" in mode for mode in modes].count(True) == 1
    assert found.duplicates() == [[0, 1]]


def test_colour_profiles_that_are_not_applied_are_counted(tmp_path):
    """Those of Pillow: one of sRGB, and one of another space."""
    image = Image.new("RGB", (4, 4), "red")
    for kind in ("sRGB", "XYZ"):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()
        for form in ("png", "jpg", "webp", "tiff"):
            image.save(tmp_path / f"{kind}.{form}", icc_profile=profile)
    image.save(tmp_path / "none.png")
    images = Folder(str(tmp_path)).open()
    found = survey(Decoder(images, Preparation(3, (4, 4))), 3, 0, lambda done: None)
    assert {mode: num for (_, mode, _), num in found.stored.items()} == {
        "RGB": 5,
        "RGB, with a colour profile, which is not applied": 4,
    }


def test_a_picture_that_is_replaced_is_named(typed, folder):
    """That of other settings has the same name."""
    words = ("data=folder", f"data.source.root={folder}", "data.size=8", "data.num_workers=0", "data.resize=box")
    for size, replaced in ((8, ""), (4, ", in place of an earlier one; out=FILE.png is another place")):
        text, _ = typed(*words, f"data.size={size}", "data.batch_size=4")
        assert entries(text)["picture"] == [f"data_checks/folder.png{replaced}"]

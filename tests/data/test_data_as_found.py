"""Data as people have it: names of splits, tables of other programs, arrays of other shapes, columns of other types."""

import io
import re
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.commands.check_data import describe_captions
from ddpm.data.any_images import image_source
from ddpm.data.labels import with_labels
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.npz import Npz
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip


def png(value):
    file = io.BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def put(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    return root


@pytest.mark.parametrize(
    "names", [("training", "testing"), ("Train", "Test"), ("TRAIN", "Validation"), ("train", "dev")]
)
def test_splits_of_other_names_are_no_classes(tmp_path, names):
    root = put(tmp_path / "data", *(f"{split}/{kind}/1.png" for split in names for kind in "ab"))
    source = Folder(str(root))
    assert source.open().root == str(root / names[0])
    assert source.open().class_names == ("a", "b")
    assert source.test_split() == Folder(str(root / names[1]))
    with pytest.raises(ValueError, match=f"contains the splits .*; give one of them: .*/{names[0]}"):
        image_source(root)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in root.rglob("*.png"):
            archive.write(file, file.relative_to(root))
    with pytest.raises(ValueError, match=f"choose one with data.source.within={names[0]}, and another"):
        Zip(str(tmp_path / "data.zip")).open()


TABLES = ["file, label\n0.png, cat\n1.png, dog\n", "file|label\n0.png|cat\n1.png|dog\n"]
TABLES += ['"file", "label"\n"0.png", "cat"\n"1.png", "dog"\n', "file,label\r0.png,cat\r1.png,dog\r"]


@pytest.mark.parametrize("text", TABLES)
def test_tables_of_other_programs_are_read(tmp_path, text):
    images = Folder(str(put(tmp_path / "a", "0.png", "1.png"))).open()
    (tmp_path / "a" / "labels.csv").write_bytes(text.encode())
    images = with_labels(Folder(images.root).open(), "label", "folder")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1]


def test_a_table_that_names_no_image_is_a_reason(tmp_path):
    root = put(tmp_path / "a", "0.png", "1.png")
    (root / "labels.csv").write_text("file,label\nx.png,cat\n")
    with pytest.raises(
        ValueError, match=r"data.labels must be null \(.*labels.csv names no image, such as 0.png\), got"
    ):
        with_labels(Folder(str(root)).open(), "label", "folder")


def saved(path, *arrays, **named):
    np.savez(path, *arrays, **named)
    return Npz(str(path))


def test_labels_of_arrays_may_be_a_column(tmp_path):
    pixels = np.zeros((3, 4, 4), np.uint8)
    assert saved(tmp_path / "a.npz", pixels, np.array([[2], [0], [1]])).open().labels.tolist() == [2, 0, 1]


def test_arrays_of_other_names_and_files_of_another_kind_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"contains images, labels; write np.savez\(path, pixels, labels\)"):
        saved(tmp_path / "a.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.arange(3)).open()
    for name in ("b.npz", "b.npy"):
        (tmp_path / name).write_bytes(b"garbage")
        with pytest.raises(ValueError, match="it does not begin as a file of NumPy arrays") as refusal:
            Npz(str(tmp_path / name)).open()
        assert "pickle" not in str(refusal.value)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return Parquet(str(path))


def test_why_a_column_gives_no_captions_is_said_where_captions_are_wanted(tmp_path):
    images = parquet(tmp_path / "a.parquet", image=[png(1)], captions=[[{"raw": "a"}]]).open()
    assert describe_captions(images).startswith("no texts: captions is a column of list<")
    images = parquet(tmp_path / "b.parquet", image=[png(1)], text=["a"], caption=["b"]).open()
    reason = "text and caption could each be the caption; choose one with data.source.caption_column=text"
    assert describe_captions(images) == f"no texts: {reason}"


def test_the_types_of_columns_are_named_where_none_is_of_images(tmp_path):
    found = re.escape("images (list<element: binary>), label (int64)")
    with pytest.raises(ValueError, match=found):
        parquet(tmp_path / "a.parquet", images=[[png(1)]], label=[1]).open()


def tar_of_images(path, *names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
    return path


def test_folders_and_file_names_in_a_tar_file_can_be_labels(tmp_path):
    images = WebDataset(str(tar_of_images(tmp_path / "a.tar", "./cat/a_0.png", "./dog/b_1.png"))).open()
    assert images.labels.tolist() == [-1, -1]
    assert with_labels(images, "folder", "webdataset").class_names == ("cat", "dog")
    assert with_labels(images, "file_name", "webdataset").class_names == ("a", "b")


def test_what_a_zip_file_has_in_place_of_images_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK")
    with pytest.raises(ValueError, match=r"gif, not 1 other files \(1 .zip\)\)"):
        Zip(str(tmp_path / "a.zip")).open()


def test_one_image_is_no_stack_of_narrow_images(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"but is \[8, 8, 3\], one image; use \[None\]"):
        Npz(str(tmp_path / "a.npy")).open()


def test_a_tar_file_can_be_evaluated(tmp_path):
    assert len(image_source(tar_of_images(tmp_path / "a.tar", "0.png", "1.png")).open()) == 2

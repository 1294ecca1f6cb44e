"""Labels in file names, folders, tables and columns, missing for some images or of another kind."""

import csv
import io
import json
import os
import re
import zipfile
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.labels import explain_no_labels, with_labels
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip

NAMES = ["cat_1.png", "dog_1.png", "cat_2.png", "owl_old_1.png"]
IN_ORDER = ["cat_1.png", "cat_2.png", "dog_1.png", "owl_old_1.png"]


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / name)
    return folder


def data_of(source, labels=None, **settings):
    settings = {"name": "own", "channels": 1, "size": 4, "batch_size": 1, "labels": labels} | settings
    return ImageDataModule(source, **settings)


def found(source, labels=None):
    """The label of each image, in the order of the source, and the class names."""
    data = data_of(source, labels)
    num, names = data.require_classes()
    assert num == (len(names) or num)
    return data.open_images(source).labels.tolist(), names


def zipped(folder, path, root=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, f"{root}{file.relative_to(folder).as_posix()}")
    return path


def table_of(path, rows, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def guided_diffusion_classes(names):
    """As `load_data` of guided-diffusion's image_datasets.py numbers them."""
    classes = [name.split("/")[-1].split("_")[0] for name in names]
    numbers = {name: number for number, name in enumerate(sorted(set(classes)))}
    return [numbers[name] for name in classes], tuple(sorted(set(classes)))


def test_labels_in_file_names_are_those_of_guided_diffusion(flat, tmp_path):
    expected = guided_diffusion_classes(IN_ORDER)
    assert found(Folder(str(flat)), "file_name") == expected == ([0, 0, 1, 2], ("cat", "dog", "owl"))
    assert found(Zip(str(zipped(flat, tmp_path / "a.zip"))), "file_name") == expected
    assert Folder(str(flat)).open().labels.tolist() == [-1] * 4  # only if they are asked for


@pytest.mark.parametrize("root", ["", "animals/", "my/animals/"])
def test_folders_in_a_zip_are_the_classes_of_the_same_folder(tmp_path, root):
    for number, name in enumerate(["zebra/1.png", "10/1.png", "9/1.png", "Ant/a/1.png", "10/2.png"]):
        path = tmp_path / "animals" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    folder = Folder(str(tmp_path / "animals"))
    archive = Zip(str(zipped(tmp_path / "animals", tmp_path / "a.zip", root)))
    of_folder, of_zip = data_of(folder), data_of(archive)
    assert of_folder.require_classes() == of_zip.require_classes() == (4, ("10", "9", "Ant", "zebra"))
    assert of_folder.content_hash() == of_zip.content_hash()


@pytest.mark.parametrize("root", ["", "animals/"])
def test_splits_in_a_zip_are_no_classes_but_chosen_as_the_error_says(tmp_path, root):
    for split, name in (("train", "a"), ("train", "b"), ("test", "b")):
        (tmp_path / "animals" / split / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "animals" / split / name / f"{split}.png")
    archive = str(zipped(tmp_path / "animals", tmp_path / "a.zip", root))
    with pytest.raises(ValueError, match="has the splits test, train; choose one with data") as caught:
        Zip(archive).open()
    (within,) = re.findall(r"data\.source\.within=(\S+),", str(caught.value))
    images = Zip(archive, within=within).open()
    assert (images.names, images.class_names) == (["a/train.png", "b/train.png"], ("a", "b"))
    assert [images.image(number).size for number in range(2)] == [(4, 4)] * 2


def test_a_zip_with_images_in_and_beside_folders_is_refused_as_a_folder_is(flat, tmp_path):
    (flat / "a").mkdir()
    Image.new("L", (4, 4)).save(flat / "a" / "1.png")
    archive = str(zipped(flat, tmp_path / "a.zip"))
    with pytest.raises(ValueError, match=r"directly \(cat_1.png\) and in subfolders; .*layout=flat"):
        Zip(archive).open()
    assert len(Zip(archive, layout="flat").open()) == 5


ROWS = [
    {"id": "owl_old_1", "kind": "bird", "age": 3, "wild": "True", "seen": ""},
    {"id": "dog_1", "kind": "mammal", "age": 10, "wild": "False", "seen": "1.0"},
    {"id": "cat_1", "kind": "mammal", "age": 2, "wild": "False", "seen": "0.0"},
    {"id": "cat_2", "kind": "mammal", "age": 2, "wild": "True", "seen": "1.0"},
    {"id": "not_there", "kind": "fish", "age": 1, "wild": "True", "seen": "7.0"},
]
COLUMNS = {
    "kind": ([1, 1, 1, 0], ("bird", "mammal")),
    "age": ([2, 2, 10, 3], ()),
    "wild": ([0, 1, 0, 1], ("False", "True")),
    "seen": ([0, 1, 1, -1], ()),
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("form", ["name", "stem", "path"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_are_a_column_of_a_table_beside_the_images(flat, column, form, delimiter):
    named = [
        {**row, "id": {"name": "{}.png", "stem": "{}", "path": "./{}.png"}[form].format(row["id"])} for row in ROWS
    ]
    table_of(flat / "labels.csv", named, delimiter)
    assert found(Folder(str(flat)), column) == COLUMNS[column]


def test_a_table_may_be_beside_images_in_a_zip_or_named_by_its_path(flat, tmp_path):
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    archive = Zip(str(zipped(flat, tmp_path / "a.zip")))
    for source in (archive, Folder(str(flat))):
        assert found(source, f"{tmp_path}/metadata.jsonl:kind") == COLUMNS["kind"]
    (tmp_path / "metadata.jsonl").rename(flat / "metadata.jsonl")
    assert found(Zip(str(zipped(flat, tmp_path / "b.zip"))), "age") == COLUMNS["age"]


def test_a_metadata_table_has_labels_of_any_type_and_need_not_have_texts(flat):
    rows = [{"file_name": name, "good": name < "d", "size": None if name < "d" else 2.0} for name in NAMES]
    (flat / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Folder(str(flat))
    assert source.open().captions is None
    assert found(source, "good") == ([1, 1, 0, 0], ("False", "True"))
    assert found(source, "size") == ([-1, -1, 2, 2], ())


def test_columns_of_one_name_are_told_apart_by_their_table(flat):
    for number in (1, 2):
        table_of(flat / f"{number}.csv", [{"id": name, "kind": name[number]} for name in NAMES])
    assert found(Folder(str(flat)), "kind")[1] == ("a", "o", "w")
    assert found(Folder(str(flat)), "2.csv:kind")[1] == ("g", "l", "t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,kind\ncat_1,a\ncat_1,b\n", r"labels.csv has two values of kind for cat_1.png: 'a' and 'b'"),
        ("id,kind\nx,a\n", r"must be one of file_name \(.*labels.csv names no image, such as cat_1.png\), got 'kind'"),
        ("id,kinds\ncat_1,a\n", "must be one of file_name, kinds, got 'kind'; did you mean 'kinds'"),
    ],
)
def test_a_table_that_does_not_fit_is_named(flat, text, message):
    (flat / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        data_of(Folder(str(flat)), "kind").require_classes()


def test_a_broken_table_matters_to_those_alone_who_choose_it(flat):
    (flat / "labels.csv").write_bytes(b"id,kind\xff\n")
    assert found(Folder(str(flat)), "file_name")[1] == ("cat", "dog", "owl")
    with pytest.raises(ValueError, match=r"labels.csv must be UTF-8"):
        data_of(Folder(str(flat)), "labels.csv").setup()


@pytest.fixture
def cifar100(tmp_path):
    """Rows with the columns of CIFAR-100 on the Hugging Face hub, and some more."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    features = {"img": {"_type": "Image"}, "fine_label": {"_type": "ClassLabel", "names": ["fox", "bee", "ant"]}}
    features["coarse_label"] = {"_type": "ClassLabel", "names": ["mammal", "insect"]}
    columns = {
        "img": [{"bytes": buffer.getvalue(), "path": None}] * 3,
        "fine_label": [2, 0, 1],
        "coarse_label": [1, 0, 1],
        "wild": [True, False, True],
        "where": ["wood", None, "air"],
        "score": pa.array([1.0, float("nan"), 0.0]),
        "many": [[0.5, 1.0], [1.0, 2.0], [3.0, 0.1]],
        "half": [0.5, 1.0, 0.0],
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    return Parquet(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("column", "expected"),
    {
        "fine_label": ([2, 0, 1], ("fox", "bee", "ant")),
        "coarse_label": ([1, 0, 1], ("mammal", "insect")),
        "wild": ([1, 0, 1], ("False", "True")),
        "where": ([1, -1, 0], ("air", "wood")),
        "score": ([1, -1, 0], ()),
    }.items(),
)
def test_labels_are_any_column_of_a_parquet_file(cifar100, column, expected):
    assert found(cifar100, column) == expected


def test_a_column_of_other_numbers_or_vectors_is_refused_where_it_is_chosen(cifar100):
    with pytest.raises(ValueError, match=r"data.labels=half: .* 1 of 3 are not, for example 0.5 of .*a.parquet row 0"):
        data_of(cifar100, "half").setup()
    with pytest.raises(ValueError, match=r"data.labels must be one of fine_label, .*, got 'many'"):
        data_of(cifar100, "many").setup()


def test_who_needs_no_labels_trains_on_data_with_labels_of_any_kind(cifar100):
    data = data_of(cifar100)
    assert data.num_train == 3
    with pytest.raises(ValueError) as caught:
        data.require_classes()
    for word in ("fine_label and coarse_label could each", "data.labels can be one of fine_label", "where", "wild"):
        assert word in str(caught.value)


def test_the_error_without_labels_names_what_could_be_some(flat):
    table_of(flat / "labels.csv", [{"id": name, "kind": "x"} for name in NAMES])
    with pytest.raises(ValueError) as caught:
        data_of(Folder(str(flat))).require_classes()
    assert str(caught.value) == (
        "cond=class needs labels, but data=own has none; data.labels can be one of file_name (cat, dog, owl), "
        f"kind ({flat}/labels.csv); cond=none trains without"
    )


def test_images_without_a_label_are_named_to_those_alone_who_need_labels(flat):
    table_of(flat / "labels.csv", ROWS)
    settings = [{}, {"memory_limit_mb": 0}, {"memory_limit_mb": 0, "verify": False}]
    for setting in settings:
        data_of(Folder(str(flat)), "seen", **setting).setup("fit")
        data = data_of(Folder(str(flat)), "seen", **setting)
        data.require_classes()
        with pytest.raises(ValueError, match=r"1 of 4 images .*\n.*owl_old_1.png: has no label\n.*data.on_broken=skip"):
            data.setup("fit")
    data = data_of(Folder(str(flat)), "seen", on_broken="skip")  # the remedy
    data.require_classes()
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        assert data.num_train == 3


def test_what_has_nothing_to_choose_from_says_so():
    with pytest.raises(ValueError, match=r"data.labels must be null for data=own, .*got 'kind'"):
        data_of(Mnist(), "kind", size=28).setup()


def test_both_ways_to_choose_a_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.source\.label_column must be null if data\.labels is given"):
        data_of(Parquet(str(tmp_path), label_column="a"), "b")


def test_the_classes_of_a_webdataset_may_be_names(tmp_path):
    import tarfile

    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for stem, name in (("1", b"owl\n"), ("2", b"cat"), ("3", b"")):
            for extension, content in (("png", buffer.getvalue()), ("cls", name)):
                entry = tarfile.TarInfo(f"{stem}.{extension}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    images = WebDataset(str(tmp_path / "a.tar")).open()
    assert (images.labels.tolist(), images.class_names) == ([1, 0, -1], ("cat", "owl"))


def test_chosen_labels_reach_the_batches(flat):
    data = data_of(Folder(str(flat)), "file_name")
    labels = torch.cat([batch["label"] for batch in data.eval_loader()])
    assert labels.tolist() == [0, 0, 1, 2]


def named(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    return Folder(str(folder))


def test_a_name_may_be_composed_of_other_unicode_characters(tmp_path):
    """A Mac decomposes the names of files."""
    decomposed, composed = (normalize(form, "é.png") for form in ("NFD", "NFC"))
    source = named(tmp_path / "a", decomposed, "b.png")
    table_of(tmp_path / "a" / "t.csv", [{"file": composed, "kind": "x"}, {"file": "b.png", "kind": "y"}])
    assert found(source, "kind") == ([0, 1] if sorted(["b.png", decomposed])[0] == decomposed else [1, 0], ("x", "y"))
    (tmp_path / "a" / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "text": name}) + "\n" for name in (composed, "b.png"))
    )
    assert set(source.open().captions) == {composed, "b.png"}


@pytest.mark.parametrize("form", ["{root}/{name}", "{name}", "./{name}"])
def test_classes_that_are_numbers_are_not_taken_for_names(tmp_path, form):
    """0 and 1 are also the names of images without extension."""
    source = named(tmp_path / "a", *(f"{k}.png" for k in range(4)))
    rows = [{"path": form.format(root=tmp_path / "a", name=f"{k}.png"), "label": k % 2} for k in range(4)]
    table_of(tmp_path / "a" / "t.csv", rows)
    assert found(source, "label")[0] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png,1\n1.png,0\n", r"t.csv must begin with the names of its columns, as file_name,label"),
        ("Image,label\n0.PNG,1\n1.PNG,0\n2.PNG,1\n3.PNG,1\n", r"t.csv names no image, such as 0.png"),
        ("Image,label\n0.png,\xe9\n", r"t.csv must be UTF-8 text"),
    ],
)
def test_why_a_table_gives_no_labels_is_said_where_a_column_is_chosen(tmp_path, text, message):
    source = named(tmp_path / "a", *(f"{k}.png" for k in range(4)))
    (tmp_path / "a" / "t.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=f"data.labels must be .*{message}"):
        found(source, "label")
    assert "can be one of" not in explain_no_labels(source.open()), "none of its columns can be chosen"


def test_the_categories_of_pandas_are_classes_and_captions(tmp_path, flat):
    images = [(flat / name).read_bytes() for name in NAMES]
    texts = pa.array(["x", None, "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"image": images, "label": texts, "text": texts}), tmp_path / "a.parquet")
    source = Parquet(str(tmp_path / "a.parquet"))
    assert source.open().labels.tolist() == [0, -1, 1, 0]
    assert (source.open().class_names, source.open().captions) == (("x", "y"), ["x", "", "y", "x"])


def test_a_table_of_hugging_face_may_be_csv_and_texts_may_have_any_characters(tmp_path):
    texts = ["a, b", "line\u2028separator", 'a "quoted" one', ""]
    for name in ("metadata.csv", "metadata.jsonl"):
        source = named(tmp_path / name, *(f"{k}.png" for k in range(4)))
        rows = [{"file_name": f"{k}.png", "text": text} for k, text in enumerate(texts)]
        if name.endswith("csv"):
            table_of(tmp_path / name / name, rows)
        else:
            lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            (tmp_path / name / name).write_bytes(b"\xef\xbb\xbf" + lines.encode())
        assert source.open().captions == texts


@pytest.mark.parametrize("table", ["nowhere.csv", "fifo.csv", "folder"])
def test_a_table_of_labels_that_is_no_file_is_named(tmp_path, table):
    """Not with `null` as the only remedy, which means other labels."""
    (tmp_path / "data").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "data" / "0.png")
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "folder").mkdir()
    images = Folder(str(tmp_path / "data")).open()
    with pytest.raises(ValueError, match=f"or TABLE.csv:COLUMN of an existing file; {tmp_path}/{table} is none, got"):
        with_labels(images, f"{tmp_path}/{table}:kind", "folder")

"""Captions and labels where people have them: texts beside images, lists in a column, JSON in a tar; and zip files made
on Windows."""

import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.commands.check_data import describe_captions
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip


def png(value):
    file = io.BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


FILES = {
    **{"a/1.png": png(10), "a/1.txt": b"\xef\xbb\xbfein Hund\r\n", "a/2.jpg.png": png(20)},
    **{"b/3.PNG": png(30), "b/3.caption": b"a cat", "b/notes.txt": b"other", "b/4.TXT": b"no image"},
}


def written(place, files, separator="/"):
    """The source of a folder, or of a zip file whose names have this separator."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr(zipfile.ZipInfo(f"a{separator}"), b"")
            for name, content in files.items():
                entry = zipfile.ZipInfo("x")
                entry.filename = name.replace("/", separator)  # the constructor replaces what the system separates by
                archive.writestr(entry, content)
        return Zip(str(place))
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return Folder(str(place))


@pytest.mark.parametrize("place", ["folder", "folder.zip"])
def test_a_text_beside_an_image_is_its_caption(tmp_path, place):
    images = written(tmp_path / place, FILES).open()
    assert images.captions == ["ein Hund", "", "a cat"]
    assert images.passed_over == {".txt": 2}
    assert describe_captions(images) == "2 images with a text, 1 without, for example 'ein Hund'"
    assert images.labels.tolist() == [0, 0, 1]


def test_a_table_of_captions_comes_before_texts(tmp_path):
    rows = [{"file_name": name, "text": name[2]} for name in ("a/1.png", "a/2.jpg.png", "b\\3.PNG")]
    table = "\n".join(map(json.dumps, rows)).encode()
    assert written(tmp_path / "folder", FILES | {"metadata.jsonl": table}).open().captions == ["1", "2", "3"]


def test_a_text_that_is_not_utf_8_is_named(tmp_path):
    images = written(tmp_path / "folder", FILES | {"a/1.txt": b"H\xfcte"}).open()
    assert images.captions is None
    assert "a/1.txt must be UTF-8" in describe_captions(images)


def test_names_of_a_zip_file_may_be_separated_as_on_windows(tmp_path):
    for number, files in enumerate((FILES, {f"top/{name}": content for name, content in FILES.items()})):
        images = pickle.loads(pickle.dumps(written(tmp_path / f"{number}.zip", files, "\\").open()))
        assert images.names == ["a/1.png", "a/2.jpg.png", "b/3.PNG"]
        assert images.labels.tolist() == [0, 0, 1]
        assert images.captions == ["ein Hund", "", "a cat"]
        assert [int(np.asarray(images.image(i)).max()) for i in range(3)] == [10, 20, 30]


def test_the_first_of_several_captions_in_a_column_is_used(tmp_path):
    kind = pa.list_(pa.string())
    columns = {"image": [png(1)] * 4, "captions": pa.array([["a", "b"], [], None, ["", "c"]], kind)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert Parquet(str(tmp_path / "a.parquet")).open().captions == ["a", "", "", "c"]


def test_a_label_may_be_in_the_json_of_a_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, about in enumerate(['{"label": 4, "caption": ["x", "y"]}', '{"label": "4"}', '{"cls": 7}', "[]"]):
            for name, content in {"png": png(number), "json": about.encode()}.items():
                info = tarfile.TarInfo(f"{number}.{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    images = WebDataset(str(tmp_path / "a.tar")).open()
    assert images.labels.tolist() == [4, 4, 7, -1]
    assert images.captions == ["x", "", "", ""]

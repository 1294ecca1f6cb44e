"""Tar files as image sources: members found by name, read where they lie, and what does not fit."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from ddpm.data.sources.webdataset import WebDataset


def png(value):
    file = io.BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


WHOLE = {
    **{"b/2.png": png(20), "b/2.txt": b"zwei\n", "b/2.cls": b"7"},
    **{"1.PNG": png(10), "1.json": b'{"caption": "one"}', "3.png": png(30), "3.seg.png.txt": b"other"},
}


def test_members_of_one_name_are_a_sample(tmp_path):
    images = WebDataset(tar(tmp_path / "a.tar", {k: v for k, v in WHOLE.items() if k != "3.seg.png.txt"})).open()
    assert [int(np.asarray(images.image(i)).max()) for i in range(3)] == [20, 10, 30]
    assert images.captions == ["zwei", "one", ""]
    assert images.labels.tolist() == [7, -1, -1]


def test_a_folder_or_a_pattern_is_all_its_files_in_order_and_goes_to_other_processes(tmp_path):
    for number in (2, 1):
        tar(tmp_path / f"{number}.tar", {"x.png": png(number)})
    for path in (tmp_path, tmp_path / "?.tar"):
        images = pickle.loads(pickle.dumps(WebDataset(str(path)).open()))
        assert [int(np.asarray(images.image(i)).max()) for i in range(2)] == [1, 2]
        assert images.captions is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.txt": b"a"}, r"tar files with images, not 1 other files \(1 .txt\)"),
        (
            {"1.png": png(1), "1.b.jpg": png(2)},
            "sample '1' must have one image, and has png, b.jpg after the first dot",
        ),
        ({"1.png": png(1), "1.txt": b"\xff"}, "1.txt is not UTF-8"),
        ({"1.png": png(1), "1.json": b"{"}, "1.json"),
        ({}, "tar files with images"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        WebDataset(tar(tmp_path / "a.tar", members)).open()


def test_samples_without_an_image_are_passed_over_and_counted(tmp_path):
    images = WebDataset(tar(tmp_path / "a.tar", {"README.md": b"", "x/LICENSE": b"", "1.png": png(1)})).open()
    assert len(images) == 1
    assert images.passed_over == {".md": 1, "without extension": 1}


def test_another_file_and_none_are_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="cannot be read as an uncompressed tar file"):
        WebDataset(str(tmp_path / "a.tar")).open()
    with pytest.raises(ValueError, match=r"a \.tar file, a folder of them or a pattern that matches files"):
        WebDataset(str(tmp_path / "b.tar")).open()

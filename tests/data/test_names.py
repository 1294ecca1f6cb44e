"""Names of files: two of one name, one name in different Unicode characters, other encodings, and links."""

import json
import os
import tarfile
import warnings
import zipfile
from io import BytesIO
from unicodedata import normalize

import pytest
from PIL import Image

from ddpm.data.contents import describe
from ddpm.data.labels import explain_no_labels, with_labels
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip

COMPOSED, DECOMPOSED = (normalize(form, "\u00e9") for form in ("NFC", "NFD"))


def png(value):
    file = BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two files of one name
        for name, content in files:
            archive.writestr(name, content)
    return Zip(str(path))


def tar_of(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return WebDataset(str(path))


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_two_files_of_one_name_in_an_archive_are_refused(tmp_path, pack):
    """A reader of such an archive shows one of them, and each its own."""
    files = [("a.png", png(1)), ("b.png", png(2)), ("a.png", png(3)), ("b.png", png(4)), ("c.png", png(5))]
    with pytest.raises(ValueError, match=r"has 2 names twice, the first is 'a\.png'; unpack it and pack it again"):
        pack(tmp_path / "a", files).open()
    assert len(pack(tmp_path / "b", files[:2]).open()) == 2
    with pytest.raises(ValueError, match=r"has 1 name twice, the first is 'a\.png'"):
        pack(tmp_path / "c", [("a.png", png(1)), ("./a.png", png(2))]).open()


def test_names_that_backslashes_make_equal_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has 1 name twice, the first is 'a/1\.png'"):
        zip_of(tmp_path / "a.zip", [("a/1.png", png(1)), ("a\\1.png", png(2))]).open()


def test_two_labels_of_one_image_in_the_table_of_edm_are_refused(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    labels = [["0.png", 0], ["1.png", 1], ["0.png", 0]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert Folder(str(tmp_path)).open().labels.tolist() == [0, 1]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [*labels, ["0.png", 1]]}))
    with pytest.raises(ValueError, match=r"dataset\.json has two labels for 0\.png: 0 and 1"):
        Folder(str(tmp_path)).open()


def test_two_columns_of_one_name_are_refused(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "labels.csv").write_text("file_name,kind,kind\n0.png,a,b\n1.png,b,a\n")
    with pytest.raises(ValueError, match=r"labels\.csv has two columns with the name 'kind'"):
        with_labels(Folder(str(tmp_path)).open(), "kind", "folder")


@pytest.mark.parametrize("ours", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("theirs", [COMPOSED, DECOMPOSED])
def test_tables_and_texts_name_images_in_either_form(tmp_path, ours, theirs):
    """As of a data set that was moved from a Mac, where names are often decomposed."""
    root = tmp_path / f"caf{ours}"
    for number in range(2):
        (root / f"{ours}s").mkdir(parents=True, exist_ok=True)
        (root / f"{ours}s" / f"{ours}{number}.png").write_bytes(png(number))
    names = [f"{theirs}s/{theirs}{number}.png" for number in range(2)]
    (root / "dataset.json").write_text(json.dumps({"labels": [[names[0], 1], [names[1], 0]]}))
    images = Folder(str(root)).open()
    assert images.labels.tolist() == [1, 0]
    (root / "dataset.json").unlink()
    (root / f"{ours}s" / f"{theirs}0.txt").write_text("one")
    assert Folder(str(root)).open().captions == ["one", ""]
    rows = [f"{names[0]},x,first", f"{tmp_path}/caf{theirs}/{names[1]},y,second"]
    (root / "labels.csv").write_text("\n".join(["name,kind,text", *rows]))
    images = with_labels(Folder(str(root)).open(), "kind", "folder")
    assert [images.class_names[label] for label in images.labels] == ["x", "y"]
    (root / f"{ours}s" / "more.csv").write_text(f"name,tone\n{theirs}0.png,x\n{theirs}1.png,y\n")
    assert with_labels(Folder(str(root)).open(), "tone", "folder").labels.tolist() == [0, 1]
    (root / "metadata.csv").write_text("\n".join(["file_name,text", f"{names[0]},first", f"{names[1]},second"]))
    assert Folder(str(root)).open().captions == ["first", "second"]


def test_class_folders_that_look_the_same_are_refused(tmp_path):
    """The labels, not the images: without labels, the folders do not matter."""
    for number, folder in enumerate((COMPOSED, DECOMPOSED, "z")):
        (tmp_path / "a" / folder).mkdir(parents=True)
        (tmp_path / "a" / folder / "1.png").write_bytes(png(number))
    images = Folder(str(tmp_path / "a")).open()
    assert images.labels.tolist() == [-1, -1, -1]
    problem = r"two classes that look the same, '\\xe9' and 'e\\u0301'; rename one of them"
    with pytest.raises(ValueError, match=problem):
        with_labels(images, "folder", "folder")
    assert "rename one of them" in explain_no_labels(images)


def test_classes_have_one_order_whatever_the_form_of_their_names(tmp_path):
    for form in ("NFC", "NFD"):
        for name in ("ez", "\u00e9", "f"):
            folder = tmp_path / form / normalize(form, name)
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(png(1))
        assert Folder(str(tmp_path / form)).open().class_names == ("ez", "f", "\u00e9")


def test_class_folders_that_differ_in_case_are_two_classes(tmp_path):
    """As of handwritten letters."""
    for name in ("A", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(1))
    assert Folder(str(tmp_path)).open().class_names == ("A", "a")


def test_names_of_other_encodings_are_refused(tmp_path):
    """They could be read, but neither printed nor stored."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png(1))
    for name in (b"\xe91.png", b"\xe92.png"):
        with open(bytes(tmp_path / "a") + b"/" + name, "wb") as file:
            file.write(png(2))
    why = r"2 names of files are not UTF-8, the first is b'\\xe91\.png'; rename them"
    with pytest.raises(ValueError, match=why):
        Folder(str(tmp_path / "a")).open()
    files = [(os.fsdecode(name), png(1)) for name in (b"\xe91.png", b"\xe92.png")]
    with pytest.raises(ValueError, match=why):
        tar_of(tmp_path / "a.tar", files).open()


def test_links_in_a_tar_file_are_followed(tmp_path):
    """tar stores a file that has two names as a link of the second to the first."""
    folder = tmp_path / "a"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "1.png").write_bytes(png(1))
    os.link(folder / "x" / "1.png", folder / "x" / "2.png")
    (folder / "x" / "3.png").symlink_to("1.png")
    (folder / "x" / "4.png").symlink_to("../x/2.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    images = WebDataset(str(tmp_path / "a.tar")).open()
    assert [images.image(number).getpixel((0, 0)) for number in range(len(images))] == [1] * 4
    for target in ("5.png", "/elsewhere.png", "../x"):
        (folder / "x" / "5.png").unlink(missing_ok=True)
        (folder / "x" / "5.png").symlink_to(target)
        with tarfile.open(tmp_path / "b.tar", "w") as archive:
            archive.add(folder, ".")
        with pytest.raises(ValueError, match=f"5.png is a link to {target}, no file in it; pack files instead"):
            WebDataset(str(tmp_path / "b.tar")).open()


def test_a_name_of_a_class_keeps_to_its_line(tmp_path):
    for name in ("a\nerror: b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(1))
    assert describe(Folder(str(tmp_path)).open()) == ", 2 classes (a error: b: 1, c: 1)"


def test_a_class_folder_that_is_a_link_to_nothing_is_refused(tmp_path):
    """As an empty one, because it would shift the numbers of the classes."""
    for name in ("a", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(png(1))
    link = tmp_path / "data" / "b"
    link.symlink_to("unmounted")
    with pytest.raises(ValueError, match=r"data/b is a link to nothing; remove or repair the link"):
        Folder(str(tmp_path / "data")).open()
    link.unlink()
    link.symlink_to("b")
    with pytest.raises(ValueError, match=r"data/b is a link to nothing"):
        Folder(str(tmp_path / "data")).open()

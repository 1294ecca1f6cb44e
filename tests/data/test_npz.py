"""Arrays of pixels: read as guided diffusion's programs write them, row by row, and refused where they are hostile."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.decode import DecodedBatches, Decoder
from ddpm.data.images import Preparation
from ddpm.data.sources.npz import Npz, RowImages
from ddpm.data.workers import BatchReader


def refusal(path):
    with pytest.raises(ValueError) as caught:
        Npz(str(path)).open()
    assert path.name in str(caught.value)
    return str(caught.value)


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def npy_of(header, data=b""):
    """A .npy of a header that its writer made up."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + data


def zipped(path, method=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_labels_are_those_that_numpy_wrote(save, channels, pixels, tmp_path):
    save(tmp_path / "a.npz", pixels[..., :channels], np.arange(12) % 5)
    images = Npz(str(tmp_path / "a.npz")).open()
    assert len(images) == 12
    for i in range(12):
        np.testing.assert_array_equal(images.image(i), pixels[i, ..., :channels])
    assert images.labels.dtype == torch.int64
    assert images.labels.tolist() == [i % 5 for i in range(12)]
    assert images.name(3).endswith("a.npz image 3")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_grey_images_need_no_channel_and_a_plain_array_no_archive(name, pixels, tmp_path):
    (np.savez if name == "a.npz" else np.save)(tmp_path / name, pixels[..., 0])
    images = Npz(str(tmp_path / name)).open()
    assert images.labels.tolist() == [-1] * 12
    np.testing.assert_array_equal(images.image(7), pixels[7, ..., :1])


def test_stored_entries_are_found_behind_whatever_lies_before_them(pixels, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("sigma.npy", npy(np.eye(5)))
        entry = zipfile.ZipInfo("arr_0.npy")
        entry.extra = struct.pack("<HH5s", 0x7777, 5, b"extra")
        archive.writestr(entry, npy(pixels))
    np.testing.assert_array_equal(Npz(str(tmp_path / "a.npz")).open().image(11), pixels[11])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_worker_processes_read_the_same(save, num_workers, pixels, tmp_path):
    save(tmp_path / "a.npz", pixels)
    images = pickle.loads(pickle.dumps(Npz(str(tmp_path / "a.npz")).open()))
    reader = BatchReader(DecodedBatches(Decoder(images, Preparation(3, (8, 8)))), num_workers)
    batches = list(reader.read([torch.tensor([11, 3]), torch.tensor([5])]))
    assert not any(problems for _, problems in batches)
    found = torch.cat([some for some, _ in batches])
    np.testing.assert_array_equal(found.numpy(), pixels[[11, 3, 5]].transpose(0, 3, 1, 2))


def test_the_same_pixels_have_one_content_hash_however_they_are_stored(pixels, tmp_path):
    np.savez(tmp_path / "a.npz", pixels)
    np.savez_compressed(tmp_path / "b.npz", pixels)
    np.save(tmp_path / "c.npy", pixels)
    hashes = {ImageDataModule(Npz(str(p)), "x", 3, 8, 1).content_hash() for p in tmp_path.iterdir()}
    assert len(hashes) == 1


def test_fingerprints_tell_files_from_each_other(pixels, tmp_path):
    np.savez(tmp_path / "a.npz", pixels)
    np.savez(tmp_path / "b.npz", 255 - pixels)
    assert Npz(str(tmp_path / "a.npz")).open().fingerprint() != Npz(str(tmp_path / "b.npz")).open().fingerprint()


WRONG = {
    "floats": (np.zeros((2, 8, 8, 3), np.float32), "store 8-bit pixels"),
    "16 bits": (np.zeros((2, 8, 8, 3), np.uint16), "store 8-bit pixels"),
    "channels first": (np.zeros((2, 3, 8, 8), np.uint8), r"transpose\(0, 2, 3, 1\)"),
    "four channels": (np.zeros((2, 8, 8, 4), np.uint8), r"1 or 3\]"),
    "one image": (np.zeros((8, 8), np.uint8), r"\[8, 8\]"),
    "no image": (np.zeros((0, 8, 8, 3), np.uint8), r"\[0, 8, 8, 3\]"),
    "Fortran order": (np.asfortranarray(np.zeros((2, 8, 8, 3), np.uint8)), "ascontiguousarray"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_what_is_no_image_of_8_bits_is_refused_with_the_remedy(save, kind, tmp_path):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    array, remedy = WRONG[kind]
    save(path, array)
    with pytest.raises(ValueError, match=remedy):
        Npz(str(path)).open()


def test_an_archive_of_statistics_is_told_from_images(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert "mu and sigma are statistics, not images" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "labels",
    [*(np.zeros(12) + x for x in (0.5, -2, 2**31, np.inf)), np.eye(12), np.zeros(11, int), np.uint64([2**64 - 1] * 12)],
    ids=lambda labels: f"{labels.dtype} {labels[0]}",
)
def test_labels_that_are_no_classes_are_a_problem_of_those_alone_who_need_labels(labels, pixels, tmp_path):
    np.savez(tmp_path / "a.npz", pixels, labels)
    images = Npz(str(tmp_path / "a.npz")).open()
    assert images.labels.tolist() == [-1] * 12
    assert "arr_1 must" in images.label_problem or "in arr_1 must be the number or the name" in images.label_problem


def test_labels_may_be_names_and_may_be_missing(pixels, tmp_path):
    np.savez(tmp_path / "a.npz", pixels, np.array(["b", "a", ""] * 4))
    images = Npz(str(tmp_path / "a.npz")).open()
    assert (images.class_names, images.labels.tolist()) == (("a", "b"), [1, 0, -1] * 4)
    np.savez(tmp_path / "a.npz", pixels, np.array([0, 3, np.nan] * 4))
    assert Npz(str(tmp_path / "a.npz")).open().labels.tolist() == [0, 3, -1] * 4


# Hostile files


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).mkdir, (self.mark,)


@pytest.mark.parametrize("place", ["arr_0", "arr_1", "npy"])
def test_nothing_is_unpickled(place, pixels, tmp_path):
    evil = npy(np.array([Evil(tmp_path / "mark")] * 12, dtype=object), allow_pickle=True)
    path = tmp_path / ("a.npy" if place == "npy" else "a.npz")
    if place == "npy":
        path.write_bytes(evil)
    else:
        zipped(path, **{"arr_0": npy(pixels), place: evil})
    refusal(path)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    refusal(tmp_path / "b.npy")
    assert not (tmp_path / "mark").exists()


HEADERS = {
    "of terabytes": "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 8, 8, 3)}",
    "beyond 64 bits": "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296, 3)}",
    "of negative length": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1, 1, 192)}",
    "nested": "[" * 9000,
    "of another kind": "5",
    "that calls": "__import__('os').mkdir('mark')",
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("method", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_hostile_header_is_one_error(kind, method, tmp_path):
    data = npy_of(HEADERS[kind], bytes(192))
    path = tmp_path / ("a.npy" if method is None else "a.npz")
    if method is None:
        path.write_bytes(data)
    else:
        zipped(path, method, arr_0=data)
    assert len(refusal(path)) < 25_000


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
@pytest.mark.parametrize("length", [0, 10, 1500])
def test_a_truncated_file_is_one_error(save, length, pixels, tmp_path):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, pixels)
    path.write_bytes(path.read_bytes()[:length])
    refusal(path)


def test_a_file_that_is_cut_short_later_is_an_error_that_names_the_image(pixels, tmp_path):
    np.save(tmp_path / "a.npy", pixels)
    images = Npz(str(tmp_path / "a.npy")).open()
    assert isinstance(images, RowImages)
    with open(tmp_path / "a.npy", "r+b") as file:
        file.truncate(1000)
    _, problems = Decoder(images, Preparation(3, (8, 8))).decoded([0, 11])
    assert [p.number for p in problems] == [11]
    assert "a.npy image 11" in problems[0].name


def test_what_is_no_file_is_refused(tmp_path):
    assert "must be an existing .npz or .npy file" in refusal(tmp_path)
    assert "must be an existing .npz or .npy file" in refusal(tmp_path / "nowhere.npz")

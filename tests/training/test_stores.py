"""Stores of generated images: what they say is there is there, and what they hold at the end is what was written."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.generation.stores import STORES
from ddpm.generation.stores.row_file import RowFile
from ddpm.generation.stores.row_store import RowStore

CONTINUING = [name for name, store in STORES.items() if store.continues]


def pixels(num, channels=3):
    return np.random.default_rng(0).integers(0, 256, (num, 4, 5, channels), np.uint8)


def opened(format, folder, num, channels=3):
    store = STORES[format](folder, num, (channels, 4, 5))
    store.begin()
    return store


@pytest.mark.parametrize("format", CONTINUING)
def test_only_what_was_written_is_there_for_this_process_and_the_next(format, tmp_path):
    store = STORES[format](tmp_path, 9, (3, 4, 5))
    assert not store.done_mask().any(), "and asking makes nothing"
    assert not list(tmp_path.iterdir())
    store.begin()
    for number in (0, 3, 8):
        store.write(number, pixels(9)[number])
    for other in (store, opened(format, tmp_path, 9)):
        assert other.done_mask().nonzero().flatten().tolist() == [0, 3, 8]


def as_jpeg(images):
    """What Pillow reads of the images in JPEG files, as uint8 `[N, H, W, C]`."""
    found = []
    for image in images:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file := io.BytesIO(), "JPEG")
        found.append(np.asarray(Image.open(file)).reshape(image.shape))
    return np.stack(found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", list(STORES))
def test_the_first_images_are_those_that_were_written(format, channels, tmp_path):
    images, num_first = pixels(410, channels), STORES[format].NUM_FIRST
    store = opened(format, tmp_path, 410, channels)
    for number in reversed(range(410)):
        store.write(number, images[number])
    images = as_jpeg(images[:num_first]) if format == "jpg" else images
    assert np.array_equal(store.finish(), images[:num_first])
    assert not list(tmp_path.rglob(".*")), "no working file stays"
    if store.continues:
        assert store.done_mask().all()
        assert np.array_equal(store.finish(), images[:num_first]), "a kill after finishing does no harm"


def test_each_png_holds_its_image_and_a_longer_row_keeps_the_names(tmp_path):
    for number, image in enumerate(pixels(3)):
        opened("png", tmp_path, 3).write(number, image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "images" / f"{number:06d}.png")), image)
    assert opened("png", tmp_path, 20_000).done_mask().sum() == 3


def test_the_archive_is_what_numpy_reads_and_carries_no_time(tmp_path):
    store = opened("npz", tmp_path, 5)
    for number, image in enumerate(pixels(5)):
        store.write(number, image)
    store.finish()
    assert np.array_equal(np.load(tmp_path / "samples.npz")["arr_0"], pixels(5))
    with zipfile.ZipFile(tmp_path / "samples.npz") as archive:
        assert [entry.date_time for entry in archive.infolist()] == [(1980, 1, 1, 0, 0, 0)]


def test_a_row_that_is_being_replaced_does_not_count(tmp_path, monkeypatch):
    rows = RowFile(tmp_path / "rows", 3, (4, 5, 3))
    rows.create()
    rows.write(1, pixels(1)[0])
    monkeypatch.setattr("os.pwrite", failing_after(2))
    with pytest.raises(OSError):
        rows.write(1, pixels(2)[1])
    assert list(rows.written()) == []


def failing_after(num):
    """os.pwrite that takes a byte at a time, as on a disk that is nearly full, and so often only."""
    import os

    write, left = os.pwrite, [num]

    def pwrite(file, data, place):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(file, data[:1], place)

    return pwrite


def test_a_write_that_is_cut_short_is_taken_up_where_it_ended(tmp_path, monkeypatch):
    rows = RowFile(tmp_path / "rows", 3, (4, 5, 3))
    rows.create()
    monkeypatch.setattr("os.pwrite", failing_after(1 + 60 + 1))
    rows.write(2, pixels(1)[0])
    assert [number for number, _ in rows.written()] == [2]
    assert np.array_equal(rows.images()[2], pixels(1)[0])


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    (tmp_path / "images").mkdir()
    half = tmp_path / "images" / ".000002.png.123.partial"
    half.write_bytes(b"half")
    store = STORES["png"](tmp_path, 3, (3, 4, 5))
    assert not store.done_mask().any()
    store.begin()
    assert not half.exists()


def test_there_is_of_one_kind_everywhere(tmp_path):
    for format in STORES:
        done_mask = STORES[format](tmp_path, 4, (3, 4, 5)).done_mask()
        assert (done_mask.dtype, done_mask.shape) == (torch.bool, (4,))


def test_measured_images_grow_and_are_read_by_their_numbers(tmp_path):
    few = RowStore(tmp_path, 3, (3, 4, 5))
    few.begin()
    for number in (0, 2):
        few.write(number, pixels(3)[number])
    more = RowStore(tmp_path, 5, (3, 4, 5))
    assert more.done_mask().tolist() == [True, False, True, False, False]
    more.begin()
    more.write(4, pixels(5)[4])
    few.begin()  # fewer are asked for again: nothing of the others is lost
    assert more.done_mask().tolist() == [True, False, True, False, True]
    (found,) = more.read([torch.tensor([4, 0])])
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), pixels(5)[[4, 0]])

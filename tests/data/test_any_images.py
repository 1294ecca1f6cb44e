"""Images made elsewhere: found whatever holds them, in their order, and never resized."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.any_images import image_data, image_source
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.npz import Npz
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.zip import Zip


def save(folder, *images):
    """Arrays or images as 0.png, 1.png and so on."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / f"{number}.png")
    return folder


def all_pixels(data):
    """uint8 `[N, C, H, W]`, as an evaluation reads them."""
    images = data.split("train")
    return next(images.pixels.reader(False).read([images.indices]))


@pytest.fixture
def everywhere(tmp_path, pixels, class_folder, edm_zip, parquet_files):
    """kind -> a path and the source that reads it; all hold `pixels`, but the folder of classes in another order."""
    np.savez(tmp_path / "a.npz", pixels)
    np.save(tmp_path / "a.npy", pixels)
    (tmp_path / "parquet").mkdir()
    for part in (0, 1):
        (tmp_path / f"train-{part}.parquet").rename(tmp_path / "parquet" / f"train-{part}.parquet")
    return {
        "folder": (class_folder, Folder),
        "zip": (edm_zip, Zip),
        "npz": (tmp_path / "a.npz", Npz),
        "npy": (tmp_path / "a.npy", Npz),
        "parquet folder": (tmp_path / "parquet", Parquet),
    }


KINDS = ["folder", "zip", "npz", "npy", "parquet folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_known_by_its_path_and_read_in_order(kind, everywhere, pixels):
    path, source = everywhere[kind]
    assert isinstance(image_source(path), source)
    data = image_data(str(path))
    assert (data.name, data.channels, data.size) == (path.name, 3, (8, 8))
    order = [i for letter in range(3) for i in range(letter, 12, 3)] if kind == "folder" else range(12)
    np.testing.assert_array_equal(all_pixels(data).numpy(), pixels[list(order)].transpose(0, 3, 1, 2))
    batch = next(iter(data.eval_loader()))
    assert batch["index"].tolist() == list(range(12))
    assert torch.equal(((batch["image"] + 1) * 127.5).round().byte(), all_pixels(data))


def test_a_single_parquet_file_is_one_too(everywhere):
    path = everywhere["parquet folder"][0] / "train-1.parquet"
    assert len(image_data(path).split("train")) == 6


def test_the_content_hash_is_of_the_pixels_and_their_order(everywhere, tmp_path, pixels):
    hashes = {kind: image_data(everywhere[kind][0]).content_hash("train") for kind in ("npz", "npy")}
    np.save(tmp_path / "b.npy", pixels[::-1])
    assert hashes["npz"] == hashes["npy"] != image_data(tmp_path / "b.npy").content_hash("train")


def test_what_holds_no_images_gets_one_error_that_lists_what_may(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a.txt", tmp_path / "nowhere.npz"):
        with pytest.raises(
            ValueError, match=rf"{path.name} .*; give a folder, .zip or .tar of images, .* .npy .*parquet"
        ):
            image_source(path)
    with pytest.raises(ValueError, match="empty contains neither images"):
        image_source(tmp_path / "empty")


def test_images_beside_folders_of_images_are_refused_with_the_folder_to_give(tmp_path, pixels):
    """As where a picture of all lies beside the folder of single ones."""
    save(tmp_path / "run", pixels[0])
    save(tmp_path / "run" / "images", *pixels)
    with pytest.raises(ValueError, match=r"directly \(0.png\) .* example .*run/images$"):
        image_data(tmp_path / "run")
    assert len(image_data(tmp_path / "run" / "images").split("train")) == 12


def test_labels_are_kept_where_there_are_any(class_folder, edm_zip):
    assert image_data(class_folder).class_names == ("a", "b", "c")
    assert image_data(edm_zip).split("train").labels.tolist() == [i % 4 for i in range(12)]
    names = [path.relative_to(class_folder).as_posix() for path in class_folder.rglob("*.png")]
    (class_folder / "dataset.json").write_text(json.dumps({"labels": [[name, 5] for name in names]}))
    assert image_data(class_folder).split("train").labels.tolist() == [5] * 12


def test_no_image_is_resized_and_the_first_that_differs_is_named(tmp_path, pixels):
    save(tmp_path / "a", pixels[0], pixels[1], pixels[2, :6], pixels[3, :, :6])
    with pytest.raises(ValueError, match="2 of 4 images do not fit") as caught:
        image_data(tmp_path / "a").setup("fit")
    first, second, remedy = str(caught.value).splitlines()[1:]
    assert first.endswith("2.png: is 6 x 8, but the first image is 8 x 8")
    assert "3.png: is 8 x 6" in second
    assert remedy.startswith("Remedy: resize all of them by one known method")


def test_images_need_not_be_square(tmp_path, pixels):
    data = image_data(save(tmp_path / "a", pixels[0, :6], pixels[1, :6]))
    assert data.image_shape == (3, 6, 8)
    np.testing.assert_array_equal(all_pixels(data)[1].numpy(), pixels[1, :6].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA"])
def test_a_grey_first_image_makes_grey_data(mode, tmp_path, pixels):
    grey = Image.new(mode, (8, 8), 65535 if mode == "I;16" else 0)
    assert image_data(save(tmp_path / "a", grey)).channels == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_any_other_makes_rgb(mode, tmp_path, pixels):
    data = image_data(save(tmp_path / "a", Image.fromarray(pixels[0]).convert(mode), pixels[1, ..., 0]))
    assert data.channels == 3
    np.testing.assert_array_equal(all_pixels(data)[1].numpy(), np.stack([pixels[1, ..., 0]] * 3))  # grey is no loss


@pytest.mark.parametrize("colour_first", [False, True])
def test_grey_images_among_images_in_colour_become_rgb_whichever_is_first(tmp_path, pixels, colour_first):
    images = [pixels[0, ..., 0], pixels[1]]
    data = image_data(save(tmp_path / "a", *images[:: -1 if colour_first else 1]))
    grey, colour = all_pixels(data)[[1, 0] if colour_first else [0, 1]].numpy()
    np.testing.assert_array_equal(grey, np.stack([pixels[0, ..., 0]] * 3))
    np.testing.assert_array_equal(colour, pixels[1].transpose(2, 0, 1))


def test_a_photograph_that_lies_on_its_side_has_the_size_that_is_seen(tmp_path, pixels):
    save(tmp_path / "a", pixels[0, :6])  # 6 x 8
    lying = Image.fromarray(pixels[1, :, :6])  # 8 x 6
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "a" / "1.png", exif=exif)
    np.testing.assert_array_equal(
        all_pixels(image_data(tmp_path / "a"))[1].numpy(), np.rot90(pixels[1, :, :6], -1).transpose(2, 0, 1)
    )


def test_broken_images_are_all_named_also_the_first(tmp_path, pixels):
    folder = save(tmp_path / "a", *pixels[:3])
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    (folder / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 3 images(?s:.*)0\.png: (?s:.*)1\.png: (?s:.*)Repair or remove them$"):
        image_data(folder).setup("fit")
    (folder / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"No image can be read:(?s:.*)0\.png(?s:.*)2\.png"):
        image_data(folder)

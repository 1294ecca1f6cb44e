"""Label images beside images: read, cropped, resized and mirrored together, and every mismatch is one error."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.generation.samples import SampleLoader

NUM = 6


@pytest.fixture
def folder(tmp_path):
    """Images whose red value is ten times their label, in two layouts of label files."""
    generator = np.random.default_rng(0)
    for number in range(NUM):
        labels = generator.integers(0, 5, (8, 12), dtype=np.uint8)
        pixels = np.stack([labels * 10, *generator.integers(0, 255, (2, 8, 12), dtype=np.uint8)], axis=2)
        for root, array, ending in (("images", pixels, "bmp"), ("labels", labels, "png")):
            path = tmp_path / root / "ab"[number % 2] / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path


def data_of(folder, **changes):
    settings = {"channels": 3, "size": [8, 12], "batch_size": 3, "label_images": str(folder / "labels")}
    source = Folder(str(folder / "images"))
    return ImageDataModule(source, "folder", **settings | {"num_labels": 5} | changes)


def red(batch):
    """The labels that the images show."""
    return ((batch["image"][:, 0] + 1) * 127.5 / 10).round().to(torch.uint8)


@pytest.mark.parametrize("streamed", [{}, {"memory_limit_mb": 0}, {"memory_limit_mb": 0, "verify": False}])
@pytest.mark.parametrize("flip", [False, True])
def test_images_and_their_labels_stay_together(folder, streamed, flip):
    data = data_of(folder, flip=flip, **streamed)
    for loader in (data.train_dataloader(), data.eval_loader("train"), SampleLoader(4, 2, images=data.split("train"))):
        for batch in loader:
            assert batch["image"].shape[1:] == (3, 8, 12)
            assert batch["label_map"].shape[1:] == (8, 12)
            assert batch["label_map"].equal(red(batch))


def test_images_alone_are_those_without_label_images(folder):
    with_labels, plain = data_of(folder), data_of(folder, label_images=None)
    assert torch.cat(list(with_labels.split("train").batches(4))).equal(
        torch.cat(list(plain.split("train").batches(4)))
    )
    assert "label_map" not in next(iter(plain.eval_loader("train")))
    assert with_labels.image_shape == plain.image_shape == (3, 8, 12)


def test_labels_are_cropped_and_resized_to_the_nearest(folder):
    (batch,) = data_of(folder, crop=8, size=4, resize="box").eval_loader("train", 1)
    (whole,) = data_of(folder).eval_loader("train", 1)
    centre = whole["label_map"][0, :, 2:10]  # a centre crop of 8 x 8
    assert all(label in block for label, block in zip(
        batch["label_map"].flatten().tolist(),
        centre.unfold(0, 2, 2).unfold(1, 2, 2).reshape(16, 4).tolist(),
        strict=True,
    ))  # fmt: skip


def test_other_labels_are_other_content(folder):
    before = data_of(folder).content_hash()
    assert before != data_of(folder, label_images=None).content_hash()
    path = folder / "labels" / "a" / "0.png"
    Image.fromarray((np.asarray(Image.open(path)) + 1) % 5).save(path)
    assert data_of(folder).content_hash() != before


def test_the_indices_of_a_palette_are_labels(folder):
    path = folder / "labels" / "a" / "0.png"
    image = Image.open(path)
    image.putpalette([9] * 768)
    image.save(path)
    (batch,) = data_of(folder, batch_size=NUM).eval_loader("train")
    assert batch["label_map"].equal(red(batch))


def missing(labels):
    (labels / "b" / "3.png").unlink()


def of_another_size(labels):
    Image.new("L", (8, 12)).save(labels / "a" / "2.png")


def beyond(labels):
    Image.new("L", (12, 8), 5).save(labels / "a" / "2.png")


def in_colour(labels):
    Image.new("RGB", (12, 8)).save(labels / "a" / "2.png")


def damaged(labels):
    (labels / "a" / "2.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, r"has no label image for 1 of 6 images; the first is .*labels/b/3.png$"),
        (of_another_size, r"a/2.bmp: is 8 x 12, but its label image is 12 x 8\nRemedy: make both of one size$"),
        (beyond, "a/2.bmp: its label image has the label 5, but data.num_labels is 5\n"),
        (in_colour, "a/2.bmp: its label image has the mode RGB; store labels as 8-bit grey or a palette\n"),
        (damaged, "a/2.bmp: its label image .*labels/a/2.png is not one of PNG, .*\n"),
    ],
)
def test_label_images_that_do_not_fit_are_named(folder, damage, message):
    damage(folder / "labels")
    with pytest.raises(ValueError, match=message):
        data_of(folder).setup()


def test_images_whose_labels_are_broken_can_be_skipped(folder):
    beyond(folder / "labels")
    data = data_of(folder, on_broken="skip")
    with pytest.warns(UserWarning, match="skipped 1 of 6 images"):
        assert data.num_train == NUM - 1


@pytest.mark.parametrize("num_labels", [None, 0, 257])
def test_the_number_of_labels_is_asked_for(folder, num_labels):
    with pytest.raises(ValueError, match=r"data.num_labels must be an integer in 1..256"):
        data_of(folder, num_labels=num_labels)


def test_images_that_are_not_files_have_no_label_images(folder):
    settings = {"channels": 1, "size": 8, "batch_size": 4, "label_images": str(folder), "num_labels": 5}
    with pytest.raises(ValueError, match=r"data\.label_images must be null for this data, whose images are not files"):
        ImageDataModule(Digits(), "digits", **settings).setup()

"""Images with anomalies: masks that say exactly where, and folders that lack something."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.anomalies.base import GOOD, AnomalySet
from ddpm.data.anomalies.mvtec import Mvtec
from ddpm.data.anomalies.planted import Planted
from ddpm.data.sources.mnist import Mnist

KINDS = ("stroke", "blob", "texture", "missing")


def planted(**changes):
    return Planted(**{"kinds": KINDS, "share_good": 0.5, "threshold": 32, "min_area": 0.012, "seed": 0, **changes})


@pytest.fixture(scope="module")
def digits():
    images, numbers = Mnist().open(), torch.arange(0, 5000, 10)
    pixels = torch.from_numpy(np.stack([images.image(n).squeeze() for n in numbers.tolist()]))[:, None]
    return pixels, numbers


@pytest.fixture(scope="module")
def found(digits):
    return planted().read((1, 28, 28), lambda: digits)


# Planted


def test_the_mask_is_where_a_pixel_changed_by_the_threshold_or_more(digits, found):
    change = (found.images.int() - digits[0].int()).abs().amax(1)
    assert torch.equal(found.masks, change >= 32)
    assert (change.flatten(1).amax(1)[~found.anomalous] == 0).all()
    assert found.masks.flatten(1).sum(1)[found.anomalous].min() >= 0.012 * 28 * 28


def test_all_kinds_and_healthy_images_come_in_their_shares(found):
    counts = {kind: found.kinds.count(kind) for kind in (*KINDS, GOOD)}
    assert sum(counts.values()) == 500
    assert abs(counts[GOOD] - 250) < 45  # four standard deviations of a binomial
    assert all(abs(counts[kind] - 62.5) < 30 for kind in KINDS)


def test_a_stroke_and_a_blob_only_add_ink_and_a_missing_part_only_takes_it(digits, found):
    change = found.images.int() - digits[0].int()
    for kind, sign in (("stroke", 1), ("blob", 1), ("missing", -1)):
        rows = torch.tensor([each == kind for each in found.kinds])
        assert (sign * change[rows]).min() >= 0


def test_a_lesion_depends_on_seed_and_number_alone(digits, found):
    pixels, numbers = digits
    some = torch.tensor([77, 3, 401])
    part = planted().read((1, 28, 28), lambda: (pixels[some], numbers[some]))
    assert torch.equal(part.images, found.images[some])
    other = planted(seed=1).read((1, 28, 28), lambda: digits)
    assert not torch.equal(other.images, found.images)
    assert other.digest != found.digest
    assert planted().read((1, 28, 28), lambda: digits).digest == found.digest


def test_colour_images_of_other_shapes_get_lesions_on_bright_grounds_too():
    pixels = torch.full((40, 3, 24, 40), 230, dtype=torch.uint8)
    pixels[:, 0] = 140  # a lesion changes this channel least
    pixels[:, :, 8:16, 10:30] = 30
    found = planted().read((3, 24, 40), lambda: (pixels, torch.arange(40)))
    rows = torch.tensor([kind == "stroke" for kind in found.kinds])
    assert (found.images[rows].int() - pixels[rows].int()).max() <= 0  # dark ink
    assert torch.equal(found.masks, (found.images.int() - pixels.int()).abs().amax(1) >= 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ()}, "kinds must be one of stroke"),
        ({"kinds": ("strok",)}, "did you mean 'stroke'"),
        ({"share_good": 1.5}, "share_good must be a number at least 0 and at most 1"),
        ({"threshold": 0}, "threshold must be an integer in 1..255"),
        ({"min_area": 0.9}, "min_area must be a number"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_fields_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        planted(**changes)


def test_images_in_which_nothing_fits_are_named(digits):
    blank = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    chosen = planted(kinds=("missing",), share_good=0.0)
    with pytest.raises(ValueError, match="no lesion 'missing' of that size fits images 0, 1, 2 in 50 attempts"):
        chosen.read((1, 28, 28), lambda: (blank, torch.arange(3)))
    with pytest.raises(ValueError, match=r"data.size must be at least 16 for anomalies=planted"):
        planted().read((1, 8, 8), lambda: digits)
    with pytest.raises(ValueError, match="all 500 images are healthy; the evaluation needs both kinds"):
        planted(share_good=1.0).read((1, 28, 28), lambda: digits)


def test_a_set_that_contradicts_itself_is_refused():
    images, masks = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="image 1 is crack, but its mask is empty"):
        AnomalySet(images, masks, (GOOD, "crack"), torch.arange(2), "x")
    masks[0, 0, 0] = True
    with pytest.raises(ValueError, match="image 0 is good, but its mask is not empty"):
        AnomalySet(images, masks, (GOOD, GOOD), torch.arange(2), "x")
    with pytest.raises(ValueError, match="need as many masks"):
        AnomalySet(images, masks[:1], (GOOD, "crack"), torch.arange(2), "x")


def test_stripes_are_as_wide_in_larger_images():
    """What neighbours differ by, summed over an image, grows as its side, where a drawing is only scaled."""
    changes = []
    for side in (28, 112):
        black = torch.zeros(60, 1, side, side, dtype=torch.uint8)
        found = planted(kinds=("texture",), share_good=0.1).read((1, side, side), lambda b=black: (b, torch.arange(60)))
        across = found.images[found.anomalous].double().diff(dim=-1).abs().sum((1, 2, 3)) / side**2
        changes.append(across.mean().item())
    assert changes[0] / changes[1] == pytest.approx(4, rel=0.25)  # as of one drawing at two scales


# MVTec AD


@pytest.fixture
def bottle(tmp_path):
    """Two good images, one cracked one of 40 x 40 with a mask of its left upper quarter."""
    root = tmp_path / "bottle"
    for folder in ("train/good", "test/good", "test/crack", "ground_truth/crack"):
        (root / folder).mkdir(parents=True)
    for name in ("test/good/000.png", "test/good/001.png", "test/crack/000.png"):
        Image.new("RGB", (40, 40), (10, 200, 30)).save(root / name)
    mask = Image.new("L", (40, 40))
    mask.paste(255, (0, 0, 20, 20))
    mask.save(root / "ground_truth/crack/000_mask.png")
    return root


def mvtec(root, resize="bilinear", crop=None):
    return Mvtec(str(root), resize, crop)


def test_a_folder_of_mvtec_is_read_with_its_masks(bottle):
    found = mvtec(bottle).read((3, 10, 10), None)
    assert found.kinds == ("crack", GOOD, GOOD)
    assert found.images.shape == (3, 3, 10, 10)
    assert found.images[0, :, 0, 0].tolist() == [10, 200, 30]
    assert found.masks[0, :5, :5].all()
    assert found.masks[0].sum() == 25
    assert not found.masks[1:].any()
    grey = mvtec(bottle).read((1, 10, 10), None)
    assert grey.images.shape == (3, 1, 10, 10)


def test_a_defect_smaller_than_a_pixel_stays_in_the_mask(bottle):
    mask = Image.new("L", (40, 40))
    mask.putpixel((39, 0), 255)
    mask.save(bottle / "ground_truth/crack/000_mask.png")
    found = mvtec(bottle).read((3, 10, 10), None)
    assert found.masks[0].nonzero().tolist() == [[0, 9]]


def test_a_crop_takes_the_same_part_of_image_and_mask(bottle):
    found = mvtec(bottle, None, 20).read((3, 20, 20), None)
    assert found.masks[0].sum() == 100
    assert found.masks[0, :10, :10].all()


def test_folders_that_lack_something_say_what(bottle, tmp_path):
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "crack").mkdir()
    for root in (tmp_path, tmp_path / "nowhere", bottle / "train"):
        with pytest.raises(ValueError, match=r"anomalies.root must be a folder with images in test/good and test/DEF"):
            mvtec(root).read((3, 10, 10), None)
    with pytest.raises(ValueError, match=r"is 40 x 40, but data.size is 10 x 10; set anomalies.resize to one of"):
        mvtec(bottle, None).read((3, 10, 10), None)
    with pytest.raises(ValueError, match=r"^resize must be one of"):
        mvtec(bottle, "nearest")
    with pytest.raises(ValueError, match=r"anomalies.crop must be data.size .* if anomalies.resize is not set"):
        mvtec(bottle, None, 12).read((3, 10, 10), None)
    Image.new("L", (20, 40), 255).save(bottle / "ground_truth/crack/000_mask.png")
    with pytest.raises(ValueError, match=r"000_mask.png is 40 x 20, but .*000.png is 40 x 40"):
        mvtec(bottle).read((3, 10, 10), None)
    Image.new("L", (40, 40)).save(bottle / "ground_truth/crack/000_mask.png")
    with pytest.raises(ValueError, match=r"crack.000_mask.png is empty in the part of 000.png"):
        mvtec(bottle).read((3, 10, 10), None)
    Image.new("L", (40, 40), 255).save(bottle / "ground_truth/crack/000_mask.png")
    (bottle / "test/good/001.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ValueError, match=r"good.001.png: is not one of PNG"):
        mvtec(bottle).read((3, 10, 10), None)
    (bottle / "ground_truth/crack/000_mask.png").unlink()
    with pytest.raises(ValueError, match=r"crack.000.png has no mask: .*000_mask.png does not exist"):
        mvtec(bottle).read((3, 10, 10), None)

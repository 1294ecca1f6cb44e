"""Images are compared with images of their own size and channels only, and each remedy of an error works."""

import re

import numpy as np
import pytest
from PIL import Image
from small_models import Quarters

from ddpm.commands import evaluate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of few images
METRICS = ["fid", "kid", "prdc", "is"]


@pytest.fixture
def measure(config, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())

    def run(*words):
        trainer = ("trainer=cpu", f"out={tmp_path / 'out'}")
        evaluate.run_evaluate(config("evaluate", *trainer, *words))

    return run


def stored(path, *shape):
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8))
    return path


def remedy_of(error) -> list[str]:
    assert "\n" not in str(error.value)
    return re.findall(r"data\.\w+=\S+", str(error.value))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(16, 16, 1), (8, 8, 3), (6, 8, 3)])
def test_images_of_another_shape_than_the_data_are_refused_with_a_remedy_that_works(measure, tmp_path, metric, shape):
    words = (f"images={stored(tmp_path / 'a.npy', *shape)}", "data=digits", f"metric={metric}")
    height, width, channels = shape
    with pytest.raises(
        ValueError, match=rf"have {channels} channels and {height} x {width} .* 1 channels and 8 x 8"
    ) as e:
        measure(*words)
    remedy = remedy_of(e)
    assert {word.split("=")[0] for word in remedy} == {
        *({"data.channels"} if channels == 3 else ()),
        *({"data.size", "data.resize"} if (height, width) != (8, 8) else ()),
    }
    measure(*words, *remedy)
    assert list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize("shapes", [((8, 8, 1), (16, 16, 1)), ((8, 8, 1), (8, 8, 3))])
def test_images_of_another_shape_than_the_reference_are_refused(measure, tmp_path, shapes):
    images, reference = (
        stored(tmp_path / name, *shape) for name, shape in zip(("a.npy", "b.npy"), shapes, strict=True)
    )
    with pytest.raises(ValueError, match=r"but those of b\.npy .*: store all in one size and with the same channels"):
        measure(f"images={images}", f"reference={reference}", "metric=fid")


def test_sizes_mixed_in_one_folder_are_refused_with_their_number(measure, tmp_path):
    (tmp_path / "a").mkdir()
    for number, side in enumerate((8, 8, 6, 8, 7)):
        Image.new("L", (side, 8), 40 * number).save(tmp_path / "a" / f"{number}.png")
    with pytest.raises(ValueError, match=r"2 of 5 images do not fit(?s:.*)2\.png: is 8 x 6(?s:.*)4\.png: is 8 x 7"):
        measure(f"images={tmp_path / 'a'}", "data=digits", "metric=fid")

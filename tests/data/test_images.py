"""What becomes of each kind of image. Expected values from arithmetic on the arrays the images were made of."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddpm.base import check
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.images import Misfit, Preparation, UnusableImage
from ddpm.data.open_image import open_image
from ddpm.data.sources.folder import Folder

HEIGHT, WIDTH = 4, 6
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def prepare(image, channels=3, size=(HEIGHT, WIDTH), **options):
    return Preparation(channels, size, **options)(image)


def reread(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def over(front, alpha, background: int):
    """Front over an opaque background, rounded to the nearest level."""
    alpha = alpha.astype(float) / 255
    return np.rint(front * alpha + background * (1 - alpha))


def luma(colour):
    return colour @ np.array([0.299, 0.587, 0.114])


def test_rgb_becomes_channels_first():
    np.testing.assert_array_equal(prepare(reread(Image.fromarray(COLOUR))), COLOUR.transpose(2, 0, 1))


def test_an_array_of_the_right_shape_is_only_transposed():
    np.testing.assert_array_equal(prepare(COLOUR), COLOUR.transpose(2, 0, 1))
    np.testing.assert_array_equal(prepare(GREY[:, :, None], channels=1), GREY[None])


def test_grey_becomes_three_equal_channels():
    np.testing.assert_array_equal(prepare(reread(Image.fromarray(GREY))), np.stack([GREY] * 3))


def test_colour_becomes_grey_by_rec_601_luma():
    np.testing.assert_allclose(prepare(Image.fromarray(COLOUR), channels=1)[0], luma(COLOUR.astype(float)), atol=0.51)


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_rgba_is_composited_over_the_background(background, level):
    image = reread(Image.fromarray(np.dstack([COLOUR, ALPHA])))
    expected = np.stack([over(COLOUR[:, :, c], ALPHA, level) for c in range(3)])
    np.testing.assert_array_equal(prepare(image, background=background), expected)


def test_grey_with_alpha_is_composited_over_white_by_default():
    image = reread(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]))
    assert image.mode == "LA"
    np.testing.assert_array_equal(prepare(image, channels=1)[0], over(GREY, ALPHA, 255))
    np.testing.assert_array_equal(prepare(image)[2], over(GREY, ALPHA, 255))


def palette_image() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    entries = RNG.integers(0, 256, (8, 3), dtype=np.uint8)
    numbers = RNG.integers(0, 8, (HEIGHT, WIDTH), dtype=np.uint8)
    numbers[0, 0] = 3
    image = Image.fromarray(numbers)
    image.putpalette(entries.tobytes())
    return image, entries[numbers], numbers


def test_a_palette_is_looked_up():
    image, colours, _ = palette_image()
    assert reread(image).mode == "P"
    np.testing.assert_array_equal(prepare(reread(image)), colours.transpose(2, 0, 1))


def test_a_transparent_palette_entry_shows_the_background():
    image, colours, numbers = palette_image()
    expected = np.where((numbers == 3)[:, :, None], 255, colours).transpose(2, 0, 1)
    np.testing.assert_array_equal(prepare(reread(image, transparency=3)), expected)
    np.testing.assert_array_equal(prepare(reread(image, "GIF", transparency=3)), expected)


def test_a_transparent_colour_of_an_rgb_file_shows_the_background():
    image = reread(Image.fromarray(COLOUR), transparency=tuple(int(v) for v in COLOUR[1, 2]))
    expected = COLOUR.copy()
    expected[1, 2] = 255
    np.testing.assert_array_equal(prepare(image), expected.transpose(2, 0, 1))


def png_with_a_transparent_colour(bits, colour, rows):
    """One row per item of `rows`, of 8 // bits or one pixel, grey or (6 bytes) RGB."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", max(1, 8 // bits), len(rows), bits, 2 * (len(colour) == 3), 0, 0, 0)
    transparent = struct.pack(f">{len(colour)}H", *colour)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = {b"IHDR": header, b"tRNS": transparent, b"IDAT": pixels, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_shows_the_background(bits):
    """Its value is stated in the bits of the file (PNG specification, 11.3.2.1)."""
    values, most = [2**bits - 1, 1, 0], 2**bits - 1
    per_row = max(1, 8 // bits)
    rows = [sum(v << (bits * k) for k in range(per_row)).to_bytes(max(1, bits // 8), "big") for v in values]
    for transparent in (1, most):
        image = open_image(png_with_a_transparent_colour(bits, [transparent], rows))
        expected = [0 if v == transparent else round(255 * v / most) for v in values]
        found = prepare(image, 1, size=(len(rows), per_row), background="black")[0]
        np.testing.assert_array_equal(found, np.repeat([expected], per_row, 0).T)


def test_a_transparent_value_may_lie_above_the_white():
    image = open_image(png_with_a_transparent_colour(16, [65535], [b"\xff\xff", b"\x0f\xff"]))
    assert prepare(image, 1, size=(2, 1), background="black", white=4095).tolist() == [[[0], [255]]]


def test_a_transparent_colour_of_16_bits_is_refused():
    with pytest.raises(UnusableImage, match="transparent colour of 16 bits, of which 8 are read"):
        open_image(png_with_a_transparent_colour(16, [1, 2, 3], [bytes(6)]))


def test_sixteen_bit_grey_is_scaled_not_cut():
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    image = reread(Image.fromarray(values))
    assert image.mode.startswith("I")
    np.testing.assert_array_equal(prepare(image, channels=1)[0], np.rint(values / 257))
    np.testing.assert_array_equal(
        prepare(Image.fromarray(values.astype(np.int32)), channels=1)[0], np.rint(values / 257)
    )


def test_bilevel_becomes_black_and_white():
    bits = GREY > 127
    image = reread(Image.fromarray(bits))
    assert image.mode == "1"
    np.testing.assert_array_equal(prepare(image, channels=1)[0], bits * 255)


def test_cmyk_becomes_rgb():
    inks = RNG.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    c_m_y, k = inks[:, :, :3].astype(float), inks[:, :, 3:].astype(float)
    expected = (255 - c_m_y) * (255 - k) / 255
    image = reread(Image.merge("CMYK", [Image.fromarray(ink) for ink in np.moveaxis(inks, 2, 0)]), "TIFF")
    assert image.mode == "CMYK"
    np.testing.assert_allclose(prepare(image).transpose(1, 2, 0), expected, atol=1.01)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the file's rows are the picture's columns: turn it a quarter clockwise
    stored = np.rot90(COLOUR, 1)
    image = reread(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    np.testing.assert_array_equal(prepare(image), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("values", [np.ones((4, 6), np.float32), np.full((4, 6), 70000, np.int32)])
def test_pixels_of_unknown_range_are_refused(values):
    with pytest.raises(UnusableImage, match="range is unknown"):
        prepare(Image.fromarray(values))


def test_another_size_is_refused_unless_a_filter_is_named():
    with pytest.raises(Misfit, match=r"is 8 x 6, but data.size is 4 x 6; set data.resize"):
        prepare(Image.new("RGB", (6, 8)))


def test_box_resize_by_whole_factors_is_the_mean_of_blocks():
    big = RNG.integers(0, 256, (HEIGHT * 2, WIDTH * 2), dtype=np.uint8)
    expected = big.reshape(HEIGHT, 2, WIDTH, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(
        prepare(Image.fromarray(big), channels=1, resize="box")[0], expected, atol=1.01
    )  # Pillow rounds twice


@pytest.mark.parametrize("filter_name", ["box", "bilinear", "bicubic", "lanczos"])
def test_resizing_is_antialiased(filter_name):
    stripes = np.zeros((HEIGHT * 8, WIDTH * 8), np.uint8)
    stripes[:, ::2] = 255  # sampling every eighth column would see one colour only
    small = prepare(Image.fromarray(stripes), channels=1, resize=filter_name)[0].astype(float)
    np.testing.assert_allclose(small[:, 1:-1], 127.5, atol=12)


def test_what_does_not_fit_the_shape_is_cropped_evenly():
    wide = np.zeros((HEIGHT, WIDTH + 4), np.uint8)
    wide[:, 2:-2] = GREY
    np.testing.assert_array_equal(prepare(Image.fromarray(wide), channels=1, resize="lanczos")[0], GREY)


def test_crop_counts_the_files_pixels():
    framed = np.pad(GREY, 3)
    np.testing.assert_array_equal(prepare(Image.fromarray(framed), channels=1, crop=(HEIGHT, WIDTH))[0], GREY)
    doubled = np.pad(GREY.repeat(2, 0).repeat(2, 1), 5)
    cropped = prepare(Image.fromarray(doubled), channels=1, crop=(2 * HEIGHT, 2 * WIDTH), resize="box")
    np.testing.assert_array_equal(cropped[0], GREY)


def test_an_image_smaller_than_the_crop_is_refused():
    with pytest.raises(Misfit, match=r"is 4 x 6, smaller than data.crop=\[9, 9\]"):
        prepare(Image.fromarray(GREY), crop=(9, 9), resize="box")


def test_size_is_one_length_or_height_and_width():
    assert check.height_width("data.size", 8) == (8, 8)
    assert check.height_width("data.size", [4, 6]) == (4, 6)
    for wrong in ([4], [4, 0], "8", 0, 2.5, [1, 2, 3]):
        with pytest.raises(ValueError, match=r"data\.size"):
            check.height_width("data.size", wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, r"data\.channels must be one of 1, 3, got 2"),
        ({"resize": "bicubik"}, "did you mean 'bicubic'"),
        ({"background": "grey"}, r"data\.background must be one of white, black"),
        ({"crop": (9, 9)}, r"data\.crop must be data\.size .* if data\.resize is not set"),
    ],
)
def test_wrong_options_name_field_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        prepare(Image.fromarray(GREY), **options)


@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_the_white_of_deep_images_is_a_setting(white):
    values = np.linspace(0, white, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)
    expected = np.floor(values.astype(float) * 255 / white + 0.5)
    np.testing.assert_array_equal(prepare(reread(Image.fromarray(values)), channels=1, white=white)[0], expected)


def test_values_above_white_are_refused():
    values = np.full((HEIGHT, WIDTH), 4096, dtype=np.uint16)
    with pytest.raises(UnusableImage, match=r"has the value 4096, above data\.white=4095"):
        prepare(reread(Image.fromarray(values)), channels=1, white=4095)


@pytest.mark.parametrize(("largest", "white"), [(200, 255), (900, 1023), (4000, 4095), (16383, 16383)])
def test_deep_images_that_would_be_black_ask_for_their_white(tmp_path, largest, white):
    for number in range(3):
        values = np.full((4, 4), largest - number, dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    settings = {"source": Folder(str(tmp_path)), "name": "scans", "channels": 1, "size": 4, "batch_size": 2}
    with pytest.raises(ValueError, match=rf"^data\.white must be given.*data\.white={white} if that is their white"):
        ImageDataModule(**settings).split("train")
    for chosen in (white, 65535):
        (batch,) = ImageDataModule(**settings, white=chosen, eval_batch_size=3).eval_loader()
        brightest = round(float((batch["image"].max() + 1) * 127.5))
        assert brightest == math.floor(255 * largest / chosen + 0.5)


def test_bright_deep_images_and_shallow_ones_need_no_white(tmp_path):
    Image.fromarray(np.full((4, 4), 20000, dtype=np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 3, dtype=np.uint8)).save(tmp_path / "b.png")
    data = ImageDataModule(Folder(str(tmp_path)), "scans", channels=1, size=4, batch_size=2)
    assert len(data.split("train")) == 2


def test_a_white_without_effect_is_refused(tmp_path):
    """One deep image is enough, wherever it lies."""
    for number in range(40):
        Image.fromarray(np.full((4, 4), number, dtype=np.uint8)).save(tmp_path / f"{number:02d}.png")
    settings = {"source": Folder(str(tmp_path)), "name": "scans", "channels": 1, "size": 4, "batch_size": 2}
    with pytest.raises(ValueError, match=r"^data\.white must be null, because .* no image has more than 8, got 4095"):
        ImageDataModule(**settings, white=4095).split("train")
    ImageDataModule(**settings, white=65535).split("train")
    Image.fromarray(np.full((4, 4), 4000, dtype=np.uint16)).save(tmp_path / "01.png")
    ImageDataModule(**settings, white=4095).split("train")
    others = tmp_path / "others"
    others.mkdir()
    (tmp_path / "01.png").rename(others / "01.png")
    settings["source"], shallow = Folder(str(others)), Folder(str(tmp_path), layout="flat")
    for source, test in ((Folder(str(others)), shallow), (shallow, Folder(str(others)))):
        data = ImageDataModule(**{**settings, "source": source}, white=4095, test_source=test)
        assert data.split("train").indices.tolist() == [*range(len(source.open()))]
        assert data.split("test").indices.tolist() == [*range(len(test.open()))]

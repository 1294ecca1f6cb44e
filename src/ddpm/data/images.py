"""Conversion of any decoded image to uint8 `[C, H, W]` of one size.

Transparency is composited over `background`; 16-bit grey is scaled so that `white` becomes 255, and rounded (Pillow
itself reads 16-bit colour as its high byte); palettes, CMYK, YCbCr and bilevel images become RGB or grey (Rec. 601
luma) by Pillow's own conversion, without ICC profiles; an EXIF orientation is applied; the first of several frames is
used.
"""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from PIL import Image, ImageOps

from ddpm.base import check

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FULL_WHITE = 65535
BACKGROUNDS = {"white": 255, "black": 0}
Resize = Annotated[str, check.words(*FILTERS)] | None
ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow stores an orientation


class UnusableImage(ValueError):
    """A file that is broken, or whose pixels have no known range. The message does not name the file."""


class Misfit(UnusableImage):
    """An intact image that does not fit the settings, as one of another size. It is never skipped, because the remedy
    is a setting.

    remedy_if_all: another remedy, if all images have it.
    """

    def __init__(self, what: str, remedy: str, remedy_if_all: str = "") -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy, self.remedy_if_all = what, remedy, remedy_if_all


@dataclass(frozen=True)
class Preparation:
    """Converts an image to uint8 `[channels, *size]`.

    crop: (height, width) of a centre crop in pixels of the file, before resizing; None: no crop. resize: antialiased
    filter that resizes the largest centred part with the aspect ratio of `size`; None: every image must have this size.
    background: colour behind transparent pixels; white suits drawings and icons (without compositing, the arbitrary
    colour stored under transparent pixels would appear). white: value of white in 16-bit grey images; None: 65535.
    """

    channels: int
    size: tuple[int, int]
    crop: tuple[int, int] | None = None
    resize: Resize = None
    background: Annotated[str, check.words(*BACKGROUNDS)] = "white"
    white: Annotated[int, check.integers(1, FULL_WHITE)] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check.fields(self, "data.")
        check.one_of("data.channels", self.channels, (1, 3))
        if self.crop is not None and self.resize is None and self.crop != self.size:
            check.fail("data.crop", list(self.crop), f"data.size ({list(self.size)}) if data.resize is not set")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.size

    @property
    def described(self) -> str:
        """All fields, for a hash. Without a white, the text is that of versions that had no such field."""
        return repr(self) if self.white is None else f"{self!r}, white={self.white}"

    def __call__(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """uint8 `[C, H, W]`. An array is uint8 `[H, W]` or `[H, W, 1 or 3]`. Raises UnusableImage."""
        if isinstance(image, np.ndarray):
            if self.crop is None and image.shape == (*self.size, self.channels):
                return image.transpose(2, 0, 1)
            image = Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)
        background, white = BACKGROUNDS[self.background], self.white or FULL_WHITE
        image = self.framed(eight_bit(turn_upright(image), self.channels, background, white))
        pixels = np.frombuffer(image.tobytes(), dtype=np.uint8)  # a fifth faster than np.asarray(image)
        return pixels.reshape(*self.size, self.channels).transpose(2, 0, 1)

    def framed(self, image: Image.Image, resample: Image.Resampling | None = None) -> Image.Image:
        """`image` cropped and resized as the fields say. resample: another filter than `resize`."""
        height, width = self.size
        if self.crop is not None:
            if image.height < self.crop[0] or image.width < self.crop[1]:
                raise Misfit(
                    f"is {image.height} x {image.width}, smaller than data.crop={list(self.crop)}",
                    "choose a smaller data.crop, or null",
                )
            image = image.crop(centre_crop(image.size, self.crop[::-1]))
        if image.size == (width, height):
            return image
        if self.resize is None:
            raise Misfit(
                f"is {image.height} x {image.width}, but data.size is {height} x {width}",
                f"set data.resize to one of {', '.join(FILTERS)}",
                f"data.size=[{image.height},{image.width}]",
            )
        scale = min(image.width / width, image.height / height)
        part = centre_crop(image.size, (round(width * scale), round(height * scale)))
        return image.resize((width, height), FILTERS[self.resize] if resample is None else resample, box=part)


def centre_crop(size: tuple[int, int], part: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a centred part (width, height); odd margins are rounded towards the top left."""
    left, top = (size[0] - part[0]) // 2, (size[1] - part[1]) // 2
    return left, top, left + part[0], top + part[1]


def turn_upright(image: Image.Image) -> Image.Image:
    image.load()
    if image.format == "TIFF" or not ORIENTED.isdisjoint(image.info):  # reading EXIF is slow: a third of a small decode
        return ImageOps.exif_transpose(image)
    return image


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits of grey."""
    return image.mode == "I" or image.mode.startswith("I;16")


def bits_of(image: Image.Image) -> int:
    """Bits of a channel in the file, before it is decoded. Pillow reads 16-bit colours as 8 bits, of mode "RGB;16B"."""
    if image.mode == "1":
        return 1
    is_16 = image.mode.startswith("I;16") or any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    return 16 if is_16 else 32 if image.mode == "F" or is_deep(image) else 8


def grey_values(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Of an image with more than 8 bits of grey: int64 `[H, W]`, and which of them are opaque, bool `[H, W]`."""
    values = np.asarray(image).astype(np.int64)
    return values, values != image.info.get("transparency", -1)


def eight_bit(image: Image.Image, channels: int, background: int, white: int) -> Image.Image:
    """`image` as an "L" or "RGB" image of 8 bits per channel. white: in images of more bits."""
    if image.mode == "F":
        raise UnusableImage("has floating-point pixels, whose range is unknown; store 8 or 16 bits")
    if is_deep(image):
        values, is_opaque = grey_values(image)
        if values.min() < 0 or values.max() > FULL_WHITE:
            raise UnusableImage("has 32-bit pixels, whose range is unknown; store 8 or 16 bits")
        brightest = values.max(initial=0, where=is_opaque)
        if brightest > white:
            raise Misfit(f"has the value {brightest}, above data.white={white}", "choose a larger data.white")
        levels = np.where(is_opaque, (255 * values + white // 2) // white, background)
        image = Image.fromarray(levels.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, (background,) * 3)
        canvas.paste(image, mask=image.getchannel("A"))
        image = canvas
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)

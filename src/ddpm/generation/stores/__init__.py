"""Image stores: one PNG or JPEG per image, one array, or only a grid of the first images."""

from collections.abc import Mapping

from ddpm.generation.stores.base import ImageStore
from ddpm.generation.stores.first_images import FirstImages
from ddpm.generation.stores.npz_archive import NpzArchive
from ddpm.generation.stores.picture_folder import JpegFolder, PngFolder

STORES: Mapping[str, type[ImageStore]] = {"grid": FirstImages, "png": PngFolder, "jpg": JpegFolder, "npz": NpzArchive}

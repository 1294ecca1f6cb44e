"""Image stores: one PNG per image, one array, or only a grid of the first images."""

from collections.abc import Mapping

from ddpm.generation.stores.base import ImageStore
from ddpm.generation.stores.first_images import FirstImages
from ddpm.generation.stores.npz_archive import NpzArchive
from ddpm.generation.stores.png_folder import PngFolder

STORES: Mapping[str, type[ImageStore]] = {"grid": FirstImages, "png": PngFolder, "npz": NpzArchive}

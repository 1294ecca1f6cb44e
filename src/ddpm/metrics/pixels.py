"""Pixels as features, for the distances that a feature extractor would not see."""

from torch import Tensor, nn

PIXELS = "pixels"
SIDE = 32
NUM_PIXEL_FEATURES = 3 * SIDE * SIDE


def pixel_features(pixels: Tensor) -> Tensor:
    """uint8 `[B, 3, H, W]` to float32 `[B, 3072]` in [0, 1].

    A side longer than 32 is averaged down to it, a shorter one is filled up with zeros, so that up to 32 x 32 the
    distances are those of the whole images.
    """
    small = nn.functional.adaptive_avg_pool2d(pixels.float() / 255, tuple(min(side, SIDE) for side in pixels.shape[2:]))
    height, width = small.shape[2:]
    return nn.functional.pad(small, (0, SIDE - width, 0, SIDE - height)).flatten(1)

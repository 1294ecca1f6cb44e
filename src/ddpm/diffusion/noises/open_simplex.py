"""OpenSimplex noise in three dimensions (Spencer 2014) on the pixels of a plane, many planes at once.

Every vertex v of a lattice has a gradient g, and the noise at x is the sum over all v of (2 - |x - v|^2)^4 g . (x - v)
where the bracket is positive. Vertices are (i, j, k) + (i + j + k) / 3, of which there is one in two units of volume.

Seen along the third axis they lie in layers m = i + j + 4 k, at height m / 3. In a layer those of one k have the same
x + y, which is 5 m / 3 - 6 k, and x - y is every second integer n. With a reach of sqrt(2), a point sees no more than
one such row of a layer, and its two nearest vertices; which they are depends on x + y and on x - y alone. On a pixel
grid those are the diagonals, so all but the last few operations are done once for a diagonal.

The reference implementation looks at six to eight vertices and leaves out one that is just within reach at about 4 % of
places, where it is wrong by up to 1.3e-4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

NUM_LAYERS = 9
"""At most so many layers, a third apart, are less than sqrt(2) away."""
PEAK = 103.0
"""What the sum is divided by, so that it stays in about [-1, 1]."""
LONG, SHORT = 11.0, 4.0
"""Components of the 24 gradients: one long, two short ones, with all signs."""
VARIANCE = (
    (LONG**2 + 2 * SHORT**2) / 3 / PEAK**2 / 2 * 4 * math.pi
    * math.sqrt(2) ** 5 * 2**8 * math.gamma(2.5) * math.gamma(9) / math.gamma(11.5) / 2
)  # fmt: skip
"""Of the noise at a place drawn uniformly: half the integral of (2 - r^2)^8 |g|^2 r^2 / 3 over the ball, 0.0985."""
PIXELS_AT_ONCE = 1 << 16
"""Of an image: so many layers are added at once that it is not less. Whatever the batch, since sums round."""


def all_gradients() -> Tensor:
    """float64 `[24, 3]`, in the order of the reference: the long axis runs fastest, then the signs of x, y, z."""
    rows = []
    for signs in range(8):
        sign = (1 if signs & 1 else -1, -1 if signs & 2 else 1, -1 if signs & 4 else 1)
        rows += [[s * (LONG if axis == long else SHORT) for axis, s in enumerate(sign)] for long in range(3)]
    return torch.tensor(rows, dtype=torch.float64)


def planes(permutations: Tensor, origins: Tensor, step: float, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Noise `[N, H, W]` at the places origin + step * (column, row, 0).

    permutations: int64 `[N, 256]`, each of 0..255. origins: float64 `[N, 3]`. step: the distance of two pixels.
    """
    height, width = size
    x, y, z = origins.unbind(1)
    along = step * torch.arange(height + width - 1, dtype=torch.float64, device=origins.device)
    sums = (x + y)[:, None] + along  # of row + column
    differences = (x - y)[:, None] + along - step * (height - 1)  # of column - row
    lowest = torch.ceil(3 * (z - math.sqrt(2))).long()
    noise = torch.zeros(len(origins), height, width, dtype=dtype, device=origins.device)
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    for layers in torch.arange(NUM_LAYERS, device=origins.device).split(at_once):
        m = lowest[:, None] + layers  # [N, L]
        dz = z[:, None] - m.double() / 3
        shift = sums[:, None] - (5 * m.double() / 3)[..., None]
        k = torch.round(-shift / 6).long()  # [N, L, H + W - 1]
        n = m[..., None] + 2 * torch.floor((differences[:, None] - m[..., None]) / 2).long()
        d_sum, d_difference = shift + 6 * k, differences[:, None] - n
        reach = hankel((2 - dz.square()[..., None] - d_sum.square() / 2).to(dtype), width)
        d_sum, d_difference = hankel(d_sum.to(dtype), width), toeplitz(d_difference.to(dtype), width)
        gradient = of_pixels(permutations, m, k, n, width, step * (height + width - 2), dtype)
        for nearest in (0, 1):
            d = d_difference - 2 * nearest
            left = (reach - d.square() / 2).clamp_(min=0).square_().square_()
            by_sum, by_difference, by_z = gradient(nearest)
            slope = by_sum.mul_(d_sum).add_(by_difference.mul_(d)).add_(by_z.mul_(dz.to(dtype)[..., None, None]))
            noise += slope.mul_(left).sum(1)
    return noise / PEAK


def hankel(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of row + column. A view."""
    return diagonals.unfold(-1, width, 1)


def toeplitz(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of column - row."""
    return diagonals.unfold(-1, width, 1).flip(-2)


def of_pixels(
    permutations: Tensor, m: Tensor, k: Tensor, n: Tensor, width: int, extent: float, dtype: torch.dtype
) -> Callable[[int], list[Tensor]]:
    """A function of 0 or 1, the vertex at n or the one after it, to its `gradients` `[N, L, H, W]` for each pixel.

    k, n: int64 `[N, L, H + W - 1]`, of row + column and of column - row, over which x + y or x - y changes by `extent`.
    Few vertices are asked once; where there are more of them than pixels, each pixel asks its own.
    """
    num_k, num_n = (math.ceil(extent / spacing) + 2 for spacing in (6, 2))
    if num_k * num_n > (k.shape[-1] // 2) ** 2:
        rows, columns = hankel(k, width), toeplitz(n, width)
        m = m[..., None, None]
        return lambda nearest: [each.to(dtype) for each in gradients(permutations, m, rows, columns + 2 * nearest)]
    first_k, first_n = k.amin(-1, keepdim=True), n.amin(-1, keepdim=True)
    ks = first_k + torch.arange(num_k, device=m.device)
    ns = first_n + 2 * torch.arange(num_n, device=m.device)
    there = gradients(permutations, m[..., None, None], ks[..., :, None], ns[..., None, :])
    tables = [each.to(dtype).flatten() for each in there]
    start = torch.arange(m.numel(), device=m.device).view(*m.shape, 1) * (num_k * num_n)
    vertex = hankel(start + (k - first_k) * num_n, width) + toeplitz((n - first_n) // 2, width)
    return lambda nearest: [at(table, vertex + nearest) for table in tables]


def gradients(permutations: Tensor, m: Tensor, k: Tensor, n: Tensor) -> list[Tensor]:
    """float64 `[N, L, ...]`: derivatives along x + y, x - y and z, of the vertices in layers m by k and n."""
    i, j = (m - 4 * k + n) // 2, (m - 4 * k - n) // 2

    def permuted(numbers: Tensor) -> Tensor:
        return permutations.gather(1, (numbers & 255).flatten(1)).view(numbers.shape)

    chosen = permuted(permuted(permuted(i) + j) + k) % 24
    x, y, z = all_gradients().to(permutations.device).unbind(1)
    return [at(component, chosen) for component in ((x + y) / 2, (x - y) / 2, z)]


def at(table: Tensor, numbers: Tensor) -> Tensor:
    """`table[numbers]` of a table of one dimension, several times as fast."""
    return table.index_select(0, numbers.flatten()).view(numbers.shape)

"""OpenSimplex noise in three dimensions (Spencer 2014) on the pixels of a plane, many planes at once.

Every vertex v of a lattice has a gradient g, and the noise at x is the sum over all v of (2 - |x - v|^2)^4 g . (x - v)
where the bracket is positive. Vertices are (i, j, k) + (i + j + k) / 3, of which there is one in two units of volume.

Seen along the third axis they lie in layers m = i + j + 4 k, at height m / 3. In a layer those of one k have the same
x + y, which is 5 m / 3 - 6 k, and x - y is every second integer n. With a reach of sqrt(2), a point has in each layer no
more than one such row and its two nearest vertices to see, and which they are depends on x + y and on x - y alone: on a
pixel grid those are the diagonals, so all but the last few operations are done once for a diagonal.
"""

import math

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
ELEMENTS_AT_ONCE = 1 << 17


def gradients() -> Tensor:
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
    at_once = max(1, ELEMENTS_AT_ONCE // noise.numel())
    for layers in torch.arange(NUM_LAYERS, device=origins.device).split(at_once):
        m = lowest[:, None] + layers  # [N, L]
        dz = z[:, None] - m / 3
        shift = sums[:, None] - (5 * m / 3)[..., None]
        k = torch.round(-shift / 6).long()  # [N, L, H + W - 1]
        n = m[..., None] + 2 * torch.floor((differences[:, None] - m[..., None]) / 2).long()
        d_sum, d_difference = shift + 6 * k, differences[:, None] - n
        first_k, first_n = k[..., -1:], n[..., :1]
        num_n = (math.ceil(along[-1].item() / 2) if False else int(step * (height + width - 2) // 2)) + 3
        num_k = int(step * (height + width - 2) // 6) + 3
        ks = first_k + torch.arange(num_k, device=m.device)
        ns = first_n + 2 * torch.arange(num_n, device=m.device)
        g = vertex_gradients(permutations, m, ks, ns)  # [N, L, K, N, 3]
        g[..., 2] *= dz[..., None, None]
        table = g.to(dtype).flatten(0, 3)
        start = torch.arange(m.numel(), device=m.device).view(*m.shape, 1) * (num_k * num_n)
        row = hankel(start + (k - first_k) * num_n, width)
        column = toeplitz((n - first_n) // 2, width)
        reach = hankel((2 - dz.square()[..., None] - d_sum.square() / 2).to(dtype), width)
        d_sum = hankel(d_sum.to(dtype), width)
        d_difference = toeplitz(d_difference.to(dtype), width)
        vertex = row + column
        for nearest in (0, 1):
            d = d_difference - 2 * nearest
            left = (reach - d.square() / 2).clamp_(min=0).square_().square_()
            along_sum, along_difference, along_z = table[vertex + nearest].unbind(-1)
            slope = along_z + along_sum * d_sum + along_difference * d
            noise += (left * slope).sum(1)
    return noise / PEAK


def hankel(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of row + column. A view."""
    return diagonals.unfold(-1, width, 1)


def toeplitz(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of column - row."""
    return diagonals.unfold(-1, width, 1).flip(-2)


def vertex_gradients(permutations: Tensor, m: Tensor, ks: Tensor, ns: Tensor) -> Tensor:
    """float64 `[N, L, K, N', 3]`: of x + y, of x - y and of z, of the vertices in layers m `[N, L]` by k and by n."""
    m, ks, ns = m[..., None, None], ks[..., :, None], ns[..., None, :]
    i, j = (m - 4 * ks + ns) // 2, (m - 4 * ks - ns) // 2

    def permuted(numbers: Tensor) -> Tensor:
        return permutations.gather(1, (numbers & 255).flatten(1)).view(numbers.shape)

    chosen = permuted(permuted(permuted(permuted(i) + j) + ks)) % 24
    table = gradients().to(permutations.device)
    x, y, z = table.unbind(1)
    return torch.stack([(x + y) / 2, (x - y) / 2, z], dim=1)[chosen]

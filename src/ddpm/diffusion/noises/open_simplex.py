"""OpenSimplex noise in three dimensions (Spencer 2014) on the pixels of a plane, many planes at once.

Every vertex v of a lattice has a gradient g, and the noise at x is the sum over all v of (2 - |x - v|^2)^4 g . (x - v)
where the bracket is positive. Vertices are (i, j, k) + (i + j + k) / 3, of which there is one in two units of volume.

Seen along the third axis they lie in layers m = i + j + 4 k, at height m / 3. In a layer those of one k have the same
x + y, which is 5 m / 3 - 6 k, and x - y is n = i - j, every second integer. With a reach of sqrt(2), a point sees no
more than one such row of a layer, no more than six rows in all, and its two nearest vertices in each; which they are
depends on x + y and on x - y alone. On a pixel grid those are the diagonals, so all but the last few operations are
done once for a diagonal.

The reference implementation looks at six to eight vertices and leaves out one that is just within reach at about 4 % of
places, where it is wrong by up to 1.3e-4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

NUM_LAYERS, NUM_ROWS = 9, 6
"""At most so many layers, a third apart, are less than sqrt(2) away, and so many rows of vertices."""
PEAK = 103.0
"""What the sum is divided by, so that it stays in about [-1, 1]."""
LONG, SHORT = 11.0, 4.0
"""Components of the 24 gradients: one long, two short ones, with all signs."""
VARIANCE = (
    (LONG**2 + 2 * SHORT**2) / 3 / PEAK**2 / 2 * 4 * math.pi
    * math.sqrt(2) ** 5 * 2**8 * math.gamma(2.5) * math.gamma(9) / math.gamma(11.5) / 2
)  # fmt: skip
"""Of the noise at a place drawn uniformly: half the integral of (2 - r^2)^8 |g|^2 r^2 / 3 over the ball, 0.0985.

As if the vertices' gradients were independent; those of a permutation are not quite, and 0.0986 is measured.
"""
PIXELS_AT_ONCE = {"cpu": 1 << 16}
"""Of so many planes that what is computed of each pixel stays in the cache; elsewhere 64 times as many."""


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
    at_once = max(1, PIXELS_AT_ONCE.get(origins.device.type, 1 << 22) // math.prod(size))
    parts = zip(permutations.split(at_once), origins.split(at_once), strict=True)
    return torch.cat([few_planes(*part, step, size, dtype) for part in parts])


def few_planes(permutations: Tensor, origins: Tensor, step: float, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The same; all numbers with D = H + W - 1 are those of diagonals."""
    height, width = size
    x, y, z = origins.unbind(1)
    along = step * torch.arange(height + width - 1, dtype=torch.float64, device=origins.device)
    sums = (x + y)[:, None] + along  # [N, D], of row + column
    differences = (x - y)[:, None] + along - step * (height - 1)  # [N, D], of column - row

    lowest = torch.ceil(3 * (z - math.sqrt(2)))
    m = lowest[:, None] + torch.arange(NUM_LAYERS, device=z.device)  # [N, layers]
    k = torch.round((5 / 3 * m[..., None] - sums[:, None]) / 6)  # [N, layers, D]
    dz = (z[:, None] - m / 3)[..., None].expand_as(k)
    d_sum = sums[:, None] - 5 / 3 * m[..., None] + 6 * k
    reach = 2 - dz.square() - d_sum.square() / 2
    seen = reach.topk(NUM_ROWS, dim=1, sorted=False).indices  # [N, rows, D], the numbers of layers
    odd = m.int() & 1

    # n = 2 c + 1 in odd layers, else 2 c. Both are known for a pixel, and which of them holds is known for a diagonal.
    c_even, c_odd = torch.floor(differences / 2), torch.floor((differences - 1) / 2)
    d_even = toeplitz((differences - 2 * c_even).to(dtype), width)
    d_jump = toeplitz((2 * (c_even - c_odd) - 1).to(dtype), width)
    c_jump = toeplitz((c_odd - c_even).int(), width)
    c_even = toeplitz(c_even.int(), width)

    extent = step * (height + width - 2)
    gradient = gradients_of_pixels(permutations, m.int(), k.int(), differences, seen, width, extent, dtype)
    is_odd = odd[..., None].expand_as(k).gather(1, seen)
    reach, d_sum, dz = (each.to(dtype).gather(1, seen) for each in (reach, d_sum, dz))
    noise = torch.zeros(len(origins), height, width, dtype=dtype, device=origins.device)
    for row in range(NUM_ROWS):
        here = (hankel(each[:, row], width) for each in (reach, d_sum, dz, is_odd.to(dtype), is_odd))
        reach_of_row, by_sum, by_z, as_number, as_int = here
        by_difference = torch.addcmul(d_even, d_jump, as_number)
        c = torch.addcmul(c_even, c_jump, as_int)
        for _ in range(2):
            of_sum, of_difference, of_z = gradient(row, c)
            slope = of_sum.mul_(by_sum).addcmul_(of_difference, by_difference).addcmul_(of_z, by_z)
            left = torch.addcmul(reach_of_row, by_difference, by_difference, value=-0.5).clamp_(min=0)
            noise.addcmul_(slope, left.square_().square_())
            by_difference, c = by_difference.sub_(2), c.add_(1)
    return noise.div_(PEAK)


def hankel(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of row + column. A view."""
    return diagonals.unfold(-1, width, 1)


def toeplitz(diagonals: Tensor, width: int) -> Tensor:
    """`[..., H, W]` from `[..., H + W - 1]`, the values of column - row."""
    return diagonals.unfold(-1, width, 1).flip(-2)


Gradients = Callable[[int, Tensor], list[Tensor]]


def gradients_of_pixels(
    permutations: Tensor,
    m: Tensor,
    k: Tensor,
    differences: Tensor,
    seen: Tensor,
    width: int,
    extent: float,
    dtype: torch.dtype,
) -> Gradients:
    """A function of the number of a row and of c `[N, H, W]` to the three `gradients` of each pixel's vertex.

    extent: by how much x + y and x - y change over the plane. Few vertices are asked once; where there are more of them
    than pixels, each pixel asks its own.
    """
    odd = m & 1
    num_k, num_c = math.ceil(extent / 6) + 1, math.ceil(extent / 2) + 3
    if num_k * num_c > (k.shape[-1] // 2) ** 2:
        m, k = m[..., None].expand_as(k).gather(1, seen), k.gather(1, seen)

        def requested(row: int, c: Tensor) -> list[Tensor]:
            m_here, k_here = hankel(m[:, row], width), hankel(k[:, row], width)
            return gradients(permutations, m_here, k_here, 2 * c + (m_here & 1), dtype)

        return requested

    first_k = k[..., -1:]  # k falls along the diagonals
    first_c = torch.floor((differences[:, :1] - 1) / 2).int()  # [N, 1]
    ks = first_k + torch.arange(num_k, dtype=m.dtype, device=m.device)
    cs = first_c + torch.arange(num_c, dtype=m.dtype, device=m.device)
    ns = 2 * cs[:, None] + odd[..., None]  # [N, layers, num_c]
    nearby = gradients(permutations, m[..., None, None], ks[..., :, None], ns[..., None, :], dtype)
    tables = [each.flatten() for each in nearby]
    start = torch.arange(m.numel(), dtype=m.dtype, device=m.device).view(*m.shape, 1) * (num_k * num_c)
    starts = (start + (k - first_k) * num_c - first_c[..., None]).gather(1, seen)

    def found(row: int, c: Tensor) -> list[Tensor]:
        numbers = c + hankel(starts[:, row], width)
        return [table.index_select(0, numbers.flatten()).view(numbers.shape) for table in tables]

    return found


def gradients(permutations: Tensor, m: Tensor, k: Tensor, n: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """`[N, ...]`: derivatives along x + y, x - y and z, of the vertices in layers m by k and n."""
    x, y, z = all_gradients().to(permutations.device, dtype)[permutations.flatten() % 24].unbind(1)
    table = permutations.flatten().to(m.dtype)
    starts = 256 * torch.arange(len(m), dtype=m.dtype, device=m.device).view(-1, *[1] * (n.dim() - 1))

    def numbers(of: Tensor) -> Tensor:
        return (of & 255).add_(starts).flatten()

    def permuted(of: Tensor) -> Tensor:
        return table.index_select(0, numbers(of)).view(of.shape)

    i = ((m + n) >> 1) - 2 * k
    j_permuted = permuted(permuted(i).add_(i).sub_(n))  # j = i - n
    chosen = numbers(j_permuted.add_(k))
    return [each.index_select(0, chosen).view(i.shape) for each in ((x + y) / 2, (x - y) / 2, z)]

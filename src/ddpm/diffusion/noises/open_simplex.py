"""OpenSimplex noise in three dimensions (Spencer 2014) on the pixels of a plane, for many planes at once.

Each vertex v of a lattice has a gradient g. The noise at x is the sum of (2 - |x - v|^2)^4 g . (x - v) over all
vertices within sqrt(2) of x. The vertices are (i, j, k) + (i + j + k) / 3, one in two units of volume.

Along the third axis, the vertices form layers m = i + j + 4 k at height m / 3. In a layer, the vertices of equal k form
a row with x + y = 5 m / 3 - 6 k, in which x - y is n = i - j, every second integer. A point is within reach of at most
one row of each layer, of at most six rows in all, and of its two nearest vertices in each row. These vertices depend
only on x + y and x - y, which are constant along the diagonals of the pixel grid, so most operations are done once per
diagonal.

The reference implementation sums over six to eight vertices. At about 4 % of places it omits a vertex that is just
within reach, where its error is up to 1.3e-4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

NUM_LAYERS, NUM_ROWS = 9, 6
"""The largest numbers of layers (1/3 apart) and of rows of vertices within sqrt(2) of a point."""
PEAK = 103.0
"""Divisor of the sum, which keeps the noise in about [-1, 1]."""
LONG, SHORT = 11.0, 4.0
"""Components of the 24 gradients: one long, two short ones, with all signs."""
VARIANCE = (
    (LONG**2 + 2 * SHORT**2) / 3 / PEAK**2 / 2 * 4 * math.pi
    * math.sqrt(2) ** 5 * 2**8 * math.gamma(2.5) * math.gamma(9) / math.gamma(11.5) / 2
)  # fmt: skip
"""Variance of the noise at a uniform place: half the integral of (2 - r^2)^8 |g|^2 r^2 / 3 over the ball, 0.0985.

This assumes independent gradients. Those of a permutation are slightly dependent, and the measured value is 0.0986.
"""
PIXELS_AT_ONCE = {"cpu": 1 << 16}
"""Pixels computed at once, so that intermediate values stay in the CPU cache; 64 times as many on other devices."""


def all_gradients() -> Tensor:
    """float64 `[24, 3]`, in the order of the reference: the long axis runs fastest, then the signs of x, y, z."""
    rows = []
    for signs in range(8):
        sign = (1 if signs & 1 else -1, -1 if signs & 2 else 1, -1 if signs & 4 else 1)
        rows += [[s * (LONG if axis == long else SHORT) for axis, s in enumerate(sign)] for long in range(3)]
    return torch.tensor(rows, dtype=torch.float64)


def planes(permutations: Tensor, origins: Tensor, step: float, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Noise `[N, H, W]` at the places origin + step * (column, row, 0).

    permutations: int64 `[N, 256]`, each of 0..255. origins: float64 `[N, 3]`. step: distance of neighbouring pixels.
    """
    at_once = max(1, PIXELS_AT_ONCE.get(origins.device.type, 1 << 22) // math.prod(size))
    parts = zip(permutations.split(at_once), origins.split(at_once), strict=True)
    return torch.cat([few_planes(*part, step, size, dtype) for part in parts])


def few_planes(permutations: Tensor, origins: Tensor, step: float, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """`planes` for all N at once. Tensors of size D = H + W - 1 have one value per diagonal."""
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
    seen = reach.topk(NUM_ROWS, dim=1, sorted=False).indices  # [N, rows, D], indices of layers
    odd = m.int() & 1

    # n = 2 c + 1 in odd layers, else 2 c. Both values depend on the pixel, the parity of the layer on the diagonal.
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
    """A view `[..., H, W]` of `[..., H + W - 1]`, the values of row + column."""
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
    """A function from a row number and c `[N, H, W]` to the three `gradients` of each pixel's vertex.

    extent: range of x + y and of x - y over the plane. If there are fewer vertices than pixels, each gradient is
    computed once and looked up by the pixels; else it is computed for each pixel.
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
    """Components along x + y, x - y and z, `[N, ...]` each, of the gradients of the vertices with m, k and n."""
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

"""Random numbers as a pure function of (seed, scope, stream, step, id).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in integer tensor operations: the
counter is (block, step, id), the key comes from (seed, scope, stream). There is no state, so the draws do not depend on
batch size, order, number of processes or resuming. A repeated call returns the same numbers, so two different draws
need two streams or two steps. Results are bitwise equal on one device and mode (eager or compiled), else equal up to
rounding.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[int | Tensor, int | Tensor]) -> Words:
    """Four words of 32 random bits for each counter. Words are int64 tensors in 0..2^32-1 that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # 64-bit products; overflow into the sign bit does not matter
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK, ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def gaussian_pair(radius_bits: Tensor, angle_bits: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent float32 normals from two words of 32 bits each (Box and Muller 1958). |z| is at most 6.66."""
    uniform = (radius_bits.float() + 1).mul_(2.0**-32)  # in (0, 1], so that the logarithm is finite
    radius = uniform.log_().mul_(-2).sqrt_()
    angle = angle_bits.float().mul_(2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()


def normals(blocks: Tensor, ids: Tensor, step: int | Tensor, k0: int | Tensor, k1: int | Tensor) -> Tensor:
    """Standard normals, float32 `[B, 4 * len(blocks)]`; one Philox call gives four."""
    w0, w1, w2, w3 = philox(counters(blocks, ids, step), (k0, k1))
    return torch.cat([*gaussian_pair(w0, w1), *gaussian_pair(w2, w3)], dim=1)


def counters(blocks: Tensor, ids: Tensor, step: int | Tensor) -> Words:
    ids = ids[:, None]
    return blocks[None, :], step + torch.zeros_like(ids), ids & MASK, ids >> 32


@functools.cache
def compiled_normals() -> Callable[..., Tensor]:
    """`normals`, compiled once for all sizes: about a sixth of the eager time, after some seconds of compilation."""
    return torch.compile(normals, dynamic=True)


@dataclass(frozen=True)
class Rng:
    """Random numbers for one purpose (scope: "train", "sample", ...) and one seed.

    compiled: compute normals in a compiled kernel; they equal the eager ones up to rounding (1e-6), not bitwise.
    """

    seed: int
    scope: str
    compiled: bool = False

    def at(self, step: int, ids: Tensor, positions: Tensor | None = None) -> "Draws":
        """Draws for the samples `ids`, int64 `[B]`. In training, step is the epoch and ids are data set indices. In
        sampling, step is the time stepped to and ids are sample numbers.
        """
        return Draws(self, step, ids, positions)

    def key(self, stream: str) -> tuple[int, int]:
        """The two 32-bit key words of a stream, the same on every machine and in every process."""
        name = f"{self.seed}/{self.scope!r}/{stream!r}"  # quoted, because the texts can contain a slash
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@dataclass(frozen=True)
class Draws:
    """All random numbers of one step for the samples `ids` (int64 `[B]`, at least 0).

    positions: int64 `[B]` or None, the samples' positions in the order of the epoch. Stratified times need them,
    because a function of the id alone cannot be spread evenly over a batch.
    """

    rng: Rng
    step: int
    ids: Tensor
    positions: Tensor | None = None

    def scope(self, name: str) -> "Draws":
        """Those of another purpose for the same samples: none of its numbers has to do with one of these."""
        return replace(self, rng=replace(self.rng, scope=f"{self.rng.scope}/{name}"))

    def bits(self, stream: str, num: int) -> Tensor:
        """int64 `[B, num]`, each in 0..2^32-1."""
        words = philox(counters(self._blocks(num), self.ids, self.step), self.rng.key(stream))
        return torch.cat(words, dim=1)[:, :num]

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """float32 `[B, *shape]` of standard normals."""
        num = math.prod(shape)
        numbers = (self.step, *self.rng.key(stream))
        if self.rng.compiled:  # tensors, because a compiled kernel is specialized on ints
            scalars = [torch.full((), n, dtype=torch.int64, device=self.ids.device) for n in numbers]
            blocks = self._blocks(max(num, 5))  # at least two blocks: a kernel for one block rounds differently
            drawn = compiled_normals()(blocks, self.ids, *scalars)
        else:
            drawn = normals(self._blocks(num), self.ids, *numbers)
        return drawn[:, :num].reshape(len(self.ids), *shape)

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """float32 `[B, *shape]`, uniform on multiples of 2^-24 in [0, 1)."""
        return (self.bits(stream, math.prod(shape)) >> 8).float().mul_(2.0**-24).reshape(len(self.ids), *shape)

    def integers(self, stream: str, num: int) -> Tensor:
        """int64 `[B]`, uniform in 0..num-1 up to a bias of num / 2^32."""
        return (self.bits(stream, 1)[:, 0] * num) >> 32

    def _blocks(self, num: int) -> Tensor:
        return torch.arange(-(-num // 4), device=self.ids.device)

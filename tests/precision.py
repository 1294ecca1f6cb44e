"""How near two programs must come: 1e-10 in float64, or a number of roundings where one of them is float32.

A bound in between passes on one processor by luck: kernels of another one add in another order.
"""

import torch


def assert_same(found, expected, tolerance=1e-10):
    """Both float64. Networks and whole sampling loops then differ by 1e-15 to 1e-12."""
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def assert_rounded(found, expected, number, scale=None):
    """Float32 that may differ by so many roundings of a number of size `scale`, by default the largest one expected."""
    bound = roundings(number, expected.abs().max().item() if scale is None else scale)
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=bound)


def roundings(number, scale=1.0):
    """What so many float32 operations, one behind the other, move a value of this size at most."""
    return number * torch.finfo(torch.float32).eps * scale


class InDouble:
    """torch, but for its float32: in the place of `torch` in another program's module whose tables are float32."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)

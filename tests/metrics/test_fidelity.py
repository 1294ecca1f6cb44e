"""How near images are to those that they should be: closed forms, and SSIM window by window."""

import numpy as np
import pytest
import torch
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.metrics.fidelity import psnr, rmse, ssim

X, Y = Rng(0, "test").at(0, torch.arange(6)).normal("x", (1, 14, 17)).double().mul(0.4).clamp(-1, 1).split(3)


def test_a_constant_error_has_its_closed_form():
    y = X + 0.2  # a tenth of the range
    assert_same(rmse(X, y), torch.full((3,), 0.1, dtype=torch.float64))
    assert_same(psnr(X, y), torch.full((3,), 20.0, dtype=torch.float64))


def test_equal_images_have_no_error_and_ssim_1():
    assert rmse(X, X).tolist() == [0, 0, 0]
    assert torch.isposinf(psnr(X, X)).all()
    assert_same(ssim(X, X), torch.ones(3, dtype=torch.float64))


def test_ssim_is_that_of_the_paper_window_by_window():
    """Wang et al. 2004, equation 13 with the weighted moments of equations 14 to 16, in plain numpy."""
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights)
    weights /= weights.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    for number, (x, y) in enumerate(zip(X[:, 0].numpy(), Y[:, 0].numpy(), strict=True)):
        rows, columns = x.shape
        x, y, values = np.pad(x, 5, mode="reflect"), np.pad(y, 5, mode="reflect"), []
        for i in range(rows):
            for j in range(columns):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                ma, mb = (weights * a).sum(), (weights * b).sum()
                va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
                cov = (weights * (a - ma) * (b - mb)).sum()
                values.append(
                    (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)),
                )
        assert ssim(X, Y)[number].item() == pytest.approx(np.mean(values), abs=1e-10)


def test_an_image_too_small_for_the_window_is_refused():
    with pytest.raises(ValueError, match=r"data.size must be at least 6 for SSIM, .* got '5 x 8'"):
        ssim(torch.zeros(1, 1, 5, 8), torch.zeros(1, 1, 5, 8))

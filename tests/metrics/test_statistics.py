"""Mean and covariance in the layout of other programs: numpy reads ours, and we read theirs."""

import numpy as np
import pytest
import torch
from precision import roundings

from ddpm.metrics.score import Moments
from ddpm.metrics.statistics import holds_statistics, read_statistics, write_statistics

ABOUT = {"data": "digits", "extractor": "mnist"}


@pytest.fixture
def features():
    """float32 [200, 6], correlated"""
    make = np.random.default_rng(0)
    return (make.normal(size=(200, 6)) @ make.normal(size=(6, 6)) + 3).astype(np.float32)


@pytest.fixture
def theirs(features):
    """mu and sigma as pytorch-fid makes them."""
    return {"mu": features.astype(float).mean(0), "sigma": np.cov(features, rowvar=False)}


def moments_of(features):
    x = torch.from_numpy(features).double()
    return Moments.from_sums(len(x), x.sum(0), x.T @ x)


def refusal(path):
    with pytest.raises(ValueError) as caught:
        read_statistics(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_numpy_reads_from_our_file_what_it_computes_of_the_features(features, theirs, tmp_path):
    write_statistics(tmp_path / "new" / "a.npz", {"pooled": moments_of(features)}, ABOUT)
    with np.load(tmp_path / "new" / "a.npz", allow_pickle=False) as found:
        assert found["mu"].dtype == found["sigma"].dtype == np.float64
        np.testing.assert_allclose(found["mu"], theirs["mu"], rtol=1e-12)
        np.testing.assert_allclose(found["sigma"], theirs["sigma"], rtol=1e-11)
        assert found["num"] == 200
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_what_is_written_is_read_back_to_the_bit(features, tmp_path):
    both = {"pooled": moments_of(features), "spatial": moments_of(features[:, :2])}
    write_statistics(tmp_path / "a.npz", both, ABOUT)
    found, about = read_statistics(tmp_path / "a.npz")
    assert about == ABOUT
    assert list(found) == ["pooled", "spatial"]
    for layer, of in both.items():
        assert found[layer].num == 200
        assert torch.equal(found[layer].mean, of.mean)
        assert torch.equal(found[layer].covariance, (of.covariance + of.covariance.T) / 2)
    with np.load(tmp_path / "a.npz") as file:
        assert set(file) == {"mu", "sigma", "mu_s", "sigma_s", "num", "about"}


def test_the_same_statistics_make_the_same_bytes(features, tmp_path):
    for name in ("a.npz", "b.npz"):
        write_statistics(tmp_path / name, {"pooled": moments_of(features)}, ABOUT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f8"])
def test_files_of_other_programs_are_read(save, kind, theirs, tmp_path):
    """pytorch-fid compresses; guided diffusion has the spatial layer and images beside."""
    save(tmp_path / "fid.npz", **{name: of.astype(kind) for name, of in theirs.items()})
    images = np.zeros((2, 8, 8, 3), np.uint8)
    save(tmp_path / "adm.npz", arr_0=images, **theirs, mu_s=theirs["mu"][:2], sigma_s=theirs["sigma"][:2, :2])
    (fid, about), (adm, _) = (read_statistics(tmp_path / name) for name in ("fid.npz", "adm.npz"))
    assert about == {}
    assert fid["pooled"].num == 0  # they do not say
    assert fid["pooled"].mean.dtype == fid["pooled"].covariance.dtype == torch.float64
    np.testing.assert_allclose(fid["pooled"].covariance, theirs["sigma"], rtol=roundings(1))
    np.testing.assert_array_equal(adm["pooled"].mean, theirs["mu"])
    assert len(adm["spatial"].mean) == 2
    assert all(holds_statistics(tmp_path / name) for name in ("fid.npz", "adm.npz"))


def test_what_holds_no_statistics_is_told_apart(theirs, tmp_path):
    np.savez(tmp_path / "images.npz", np.zeros((2, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "other.zip", **theirs)
    for path in (tmp_path, tmp_path / "images.npz", tmp_path / "other.zip.npz.gone", tmp_path / "nowhere.npz"):
        assert not holds_statistics(path)
    assert "and holds arr_0" in refusal(tmp_path / "images.npz")
    assert "does not exist" in refusal(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"must be one that ends in \.npz"):
        write_statistics(tmp_path / "a.json", {}, {})


def test_a_covariance_of_fewer_images_than_features_is_one(features, tmp_path):
    write_statistics(tmp_path / "a.npz", {"pooled": moments_of(features[:3])}, {})
    assert torch.linalg.eigvalsh(read_statistics(tmp_path / "a.npz")[0]["pooled"].covariance)[0] < 1e-10
    write_statistics(tmp_path / "b.npz", {"pooled": Moments(2, torch.ones(3), torch.zeros(3, 3))}, {})
    assert read_statistics(tmp_path / "b.npz")[0]["pooled"].covariance.abs().sum() == 0


def spoiled(theirs, **changes):
    return {name: of for name, of in {**theirs, **changes}.items() if of is not None}


SPOILED = {
    "no sigma": ({"sigma": None}, "mu without sigma"),
    "another width": ({"mu": np.zeros(5)}, r"must be \[d\]"),
    "not square": ({"sigma": np.zeros((6, 5))}, r"must be \[d\]"),
    "no features": ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"must be \[d\]"),
    "integers": ({"mu": np.zeros(6, int)}, "floating-point"),
    "NaN": ({"mu": np.full(6, np.nan)}, "finite"),
    "not symmetric": ({"sigma": np.triu(np.ones((6, 6)))}, "symmetric"),
    "no covariance": ({"sigma": -np.eye(6)}, "negative eigenvalue"),
    "negative num": ({"num": np.array(-1)}, "num must be"),
    "about of numbers": ({"about": np.array([1, 2])}, "about must be"),
    "about that is no JSON": ({"about": np.array("{")}, "must be JSON"),
    "about that is a list": ({"about": np.array("[]")}, "must be a JSON object of texts"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_is_no_mean_and_covariance_is_refused(kind, theirs, tmp_path):
    changes, message = SPOILED[kind]
    np.savez(tmp_path / "a.npz", **spoiled(theirs, **changes))
    assert message.replace("\\", "") in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_file_that_was_cut_or_has_another_byte_is_one_error(place, features, tmp_path):
    path = tmp_path / "a.npz"
    write_statistics(path, {"pooled": moments_of(features)}, ABOUT)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: int(place * len(data))])
    refusal(path)
    start = data.index(b"\x93NUMPY", data.index(b"sigma.npy")) + 128
    data[start + int(place * 8 * 36)] ^= 1
    path.write_bytes(data)
    assert "Bad CRC-32" in refusal(path)

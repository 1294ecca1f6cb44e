"""Inception from a file: the same figures as torch-fidelity's, and nothing run that a file might hold."""

import hashlib
import io
import urllib.request
from dataclasses import replace

import pytest
import safetensors.torch
import torch
import torch_fidelity
from precision import assert_rounded, roundings
from torch import nn

from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.extractors import inception as module
from ddpm.metrics.extractors.base import full_float32
from ddpm.metrics.extractors.inception import STANDARD, Inception
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.prdc import PrecisionRecall
from ddpm.metrics.weights import WeightsFile

FILE = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def sent(monkeypatch, answer):
    """What the network would say to a download: bytes, or an error to raise."""

    def urlopen(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


class Pixels(torch.utils.data.Dataset):
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


def blobs(n, seed, contrast):
    """Smooth random images of 24 x 24 as uint8."""
    coarse = torch.randn(n, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=24, mode="bicubic")
    return ((contrast * smooth).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


@pytest.mark.parametrize("fid", [False, pytest.param(True, marks=pytest.mark.slow)])  # they take 10 s for a root
@pytest.mark.filterwarnings("ignore:(FID|IS|KID) of")
def test_all_metrics_are_torch_fidelitys_own(inception_weights, fid):
    real, generated = blobs(14, 1, 0.4), blobs(15, 2, 0.7)  # 15: ten parts of unequal size
    theirs = torch_fidelity.calculate_metrics(
        input1=Pixels(generated),
        input2=Pixels(real),
        fid=fid,
        isc=True,
        kid=True,
        kid_subsets=20,
        kid_subset_size=7,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        batch_size=13,
    )
    scores = [InceptionScore(), KernelDistance(num_subsets=20), PrecisionRecall()]
    scores += [FrechetDistance(num_resamples=0)] if fid else []
    scoring = Evaluator(Inception(inception_weights), scores, batch_size=4)
    scoring.update_real(real.double() / 127.5 - 1, torch.arange(14))
    scoring.update_fake(generated.double() / 127.5 - 1, torch.arange(15))
    name = f"inception-{hashlib.sha256(inception_weights.read_bytes()).hexdigest()[:8]}_15"
    ours = {key.removesuffix(f"_{name}"): estimate.value for key, estimate in scoring.compute().items()}
    of_network = roundings(1000)  # a hundred layers, ours in batches of 4; images differ by a tenth of their features
    if fid:
        assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=of_network)
        assert theirs["frechet_inception_distance"] > 1
    assert ours["is"] - 1 == pytest.approx(theirs["inception_score_mean"] - 1, rel=of_network)
    assert ours["is_std"] == pytest.approx(theirs["inception_score_std"], rel=of_network)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=of_network)
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=roundings(1))
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=roundings(1))
    assert theirs["inception_score_mean"] > 1.1
    assert 0 < theirs["precision"] + theirs["recall"] < 2


def test_spatial_features_are_those_of_the_mixed_6_convolution_in_tensorflows_order(inception, inception_state):
    """The first branch of the 17 x 17 block that TensorFlow calls mixed_6, written out from the block's input."""
    network, seen = inception._network[0], []
    hook = network.Mixed_6d.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    found = inception(blobs(2, 0, 0.5), ["spatial"])["spatial"]
    hook.remove()
    name = "Mixed_6d.branch1x1"
    x = nn.functional.conv2d(seen[0], inception_state[f"{name}.conv.weight"])
    statistics = [inception_state[f"{name}.bn.{each}"] for each in ("running_mean", "running_var", "weight", "bias")]
    x = nn.functional.batch_norm(x, *statistics, eps=0.001).relu()
    assert found.shape == (2, 17 * 17 * 7)
    for row, column, channel in ((0, 0, 0), (3, 16, 6), (16, 5, 2)):
        place = (row * 17 + column) * 7 + channel
        assert_rounded(found[:, place], x[:, channel, row, column], 50, x.max().item())  # sums of 768 products


def test_safetensors_give_the_same_features_under_their_own_name(inception, inception_state, tmp_path):
    path = tmp_path / "random.safetensors"
    safetensors.torch.save_file(inception_state, path)
    other, pixels = Inception(path), blobs(1, 0, 0.5)
    one, two = (extract(pixels, Inception.dims).values() for extract in (inception, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert other.name == f"inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    assert other.name != inception.name


def test_only_the_standard_file_is_called_inception(inception, inception_weights, monkeypatch):
    assert inception.weights_hash == hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    assert inception.name == f"inception-{inception.weights_hash[:8]}"
    monkeypatch.setattr(module, "STANDARD", replace(STANDARD, sha256=inception.weights_hash))
    assert Inception(inception_weights).name == "inception"


def test_the_standard_hash_is_the_one_in_torch_fidelitys_file_name():
    assert STANDARD.path.name == FILE
    assert FILE.endswith(f"-{STANDARD.sha256[:8]}.pth")


def test_features_are_float32_whatever_training_has_switched_on(inception):
    pixels = blobs(1, 0, 0.5)
    plain = inception(pixels, Inception.dims)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = inception(pixels, Inception.dims)
    assert all(torch.equal(plain[layer], under_autocast[layer]) for layer in plain)
    assert {name: (f.dtype, f.shape[1]) for name, f in plain.items()} == {
        name: (torch.float32, width) for name, width in Inception.dims.items()
    }


@pytest.mark.parametrize("training", ["highest", "high", "medium"])
def test_full_float32_leaves_the_settings_as_they_were(training):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(training)
        with full_float32(torch.device("cpu")):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == training
        assert torch.backends.cudnn.allow_tf32  # torch's default; reading it fails where old and new switches differ
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_download_is_kept_only_if_its_hash_is_right(empty_cache, monkeypatch):
    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file)
    sent(monkeypatch, file.getvalue())
    with pytest.raises(ValueError, match=r"sent another file.*features\.weights"):
        Inception().to("cpu")
    assert not empty_cache.exists()
    published = replace(STANDARD, sha256=hashlib.sha256(file.getvalue()).hexdigest())
    chosen = WeightsFile.choose(None, None, published)
    assert chosen.load().tensors["a"].tolist() == [1, 1]
    assert [path.name for path in empty_cache.iterdir()] == [FILE]
    sent(monkeypatch, AssertionError("the cache should have been used"))
    assert chosen.load().tensors["a"].tolist() == [1, 1]


def test_a_damaged_file_in_the_cache_is_named(empty_cache):
    empty_cache.mkdir(parents=True)
    (empty_cache / FILE).write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"is damaged: delete it.*features\.weights=PATH"):
        Inception().to("cpu")


def test_torchs_older_file_format_is_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert WeightsFile(path).load().tensors["a"].tolist() == [1, 1]


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(ValueError, match=r"the 1 tensors of .*other\.pth are not those of the FID Inception") as caught:
        Inception(path).to("cpu")
    assert "\n" not in str(caught.value)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="flat state dict"):
        Inception(path).to("cpu")


def test_a_local_file_is_checked_by_its_hash(inception_weights, inception):
    assert Inception(inception_weights, inception.weights_hash).name == inception.name
    with pytest.raises(ValueError, match=r"has sha256 [0-9a-f]{64}, and features.sha256 is 0000"):
        Inception(inception_weights, "0" * 64).to("cpu")
    with pytest.raises(ValueError, match=r"features.sha256 must be 64 hexadecimal digits.*got 'abc'"):
        Inception(inception_weights, "abc")
    for wrong, message in (
        ("/nowhere/inception.pth", "an existing file"),
        ("inception.pkl", r"a path ending in \.pth"),
    ):
        with pytest.raises(ValueError, match=f"features.weights must be {message}"):
            Inception(wrong)

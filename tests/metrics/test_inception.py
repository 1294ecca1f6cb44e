"""Inception from a file: the same figures as torch-fidelity's, and nothing run that a file might hold."""

import hashlib
import io
import os
import pickle
import urllib.error
import urllib.request

import pytest
import safetensors.torch
import torch
import torch_fidelity
from torch import nn

from ddpm.metrics import suites, weights
from ddpm.metrics.features import Inception, full_float32

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


@pytest.mark.filterwarnings("ignore:(FID|IS) of")
def test_fid_and_is_are_torch_fidelitys_own(inception_weights):
    real, generated = blobs(12, 1, 0.4), blobs(13, 2, 0.7)  # 13: ten parts of unequal size
    theirs = torch_fidelity.calculate_metrics(
        input1=Pixels(generated),
        input2=Pixels(real),
        fid=True,
        isc=True,
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        batch_size=13,
    )
    scoring = suites.fid_is(inception_weights, batch_size=4)
    scoring.update_real(real.double() / 127.5 - 1, torch.arange(12))
    scoring.update_fake(generated.double() / 127.5 - 1, torch.arange(13))
    ours = scoring.compute()
    name = f"inception-{hashlib.sha256(inception_weights.read_bytes()).hexdigest()[:8]}_13"
    assert ours[f"fid_{name}"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours[f"is_{name}"] - 1 == pytest.approx(theirs["inception_score_mean"] - 1, rel=1e-4)
    assert ours[f"is_std_{name}"] == pytest.approx(theirs["inception_score_std"], rel=1e-4)
    assert theirs["frechet_inception_distance"] > 1
    assert theirs["inception_score_mean"] > 1.1


def test_safetensors_give_the_same_features_under_their_own_name(inception, inception_state, tmp_path):
    path = tmp_path / "random.safetensors"
    safetensors.torch.save_file(inception_state, path)
    other, pixels = Inception(path), blobs(1, 0, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(inception(pixels).values(), other(pixels).values(), strict=True))
    assert other.name == f"inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    assert other.name != inception.name


def test_only_the_standard_file_is_called_inception(inception, inception_weights, monkeypatch):
    assert inception.weights_hash == hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    assert inception.name == f"inception-{inception.weights_hash[:8]}"
    monkeypatch.setattr("ddpm.metrics.features.STANDARD_SHA256", inception.weights_hash)
    assert inception.name == "inception"


def test_the_standard_hash_is_the_one_in_torch_fidelitys_file_name():
    assert weights.standard_path().name == FILE
    assert FILE.endswith(f"-{weights.STANDARD_SHA256[:8]}.pth")


def test_features_are_float32_whatever_training_has_switched_on(inception):
    pixels = blobs(1, 0, 0.5)
    plain = inception(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = inception(pixels)
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


def test_without_weights_and_network_one_error_says_everything(empty_cache, monkeypatch):
    sent(monkeypatch, urllib.error.URLError("Name or service not known"))
    scoring = suites.fid_is()  # a configuration can be built without them
    with pytest.raises(ValueError) as caught:
        scoring.to("cpu")
    message = str(caught.value)
    for part in (FILE, str(empty_cache), "metric.weights=PATH", "github.com", "Name or service not known"):
        assert part in message
    assert caught.value.__suppress_context__


def test_a_download_is_kept_only_if_its_hash_is_right(empty_cache, monkeypatch):
    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file)
    sent(monkeypatch, file.getvalue())
    with pytest.raises(ValueError, match=r"sent another file.*metric\.weights"):
        weights.load_weights(None)
    assert not empty_cache.exists()
    monkeypatch.setattr(weights, "STANDARD_SHA256", hashlib.sha256(file.getvalue()).hexdigest())
    assert weights.load_weights(None).tensors["a"].tolist() == [1, 1]
    assert [path.name for path in empty_cache.iterdir()] == [FILE]
    sent(monkeypatch, AssertionError("the cache should have been used"))
    assert weights.load_weights(None).tensors["a"].tolist() == [1, 1]


def test_a_damaged_file_in_the_cache_is_named(empty_cache):
    empty_cache.mkdir(parents=True)
    (empty_cache / FILE).write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"is damaged: delete it.*metric\.weights=PATH"):
        weights.load_weights(None)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))], ids=["torch", "pickle"]
)
def test_an_evil_weights_file_leaves_no_mark(tmp_path, save):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    save({"Conv2d_1a_3x3.conv.weight": Evil(mark)}, path)
    with pytest.raises(ValueError, match="more than tensors") as caught:
        suites.fid(weights=path).to("cpu")
    assert not mark.exists()
    assert "weights_only" not in str(caught.value)


def test_torchs_older_file_format_is_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert weights.load_weights(path).tensors["a"].tolist() == [1, 1]


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(ValueError, match=r"the 1 tensors of .*other\.pth are not those of the FID Inception") as caught:
        Inception(path).to("cpu")
    assert "\n" not in str(caught.value)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="flat state dict"):
        Inception(path).to("cpu")

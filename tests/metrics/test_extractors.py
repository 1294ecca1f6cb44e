"""The other feature extractors: DINOv2, CLIP, and a network of the user's."""

import hashlib
import math
import urllib.error
import urllib.request

import pytest
import safetensors.torch
import torch
import torch_fidelity.feature_extractor_clip as fidelity
import torchvision
from precision import assert_rounded
from torch import nn

from ddpm.metrics.extractors import clip, dinov2
from ddpm.metrics.extractors.clip import Clip
from ddpm.metrics.extractors.dinov2 import Dinov2
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.extractors.module import Module

TINY = "vit-tiny"


def noise(n, size, channels=3):
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)


def random_state(network, scale=0.2):
    make = torch.Generator().manual_seed(0)
    return {name: torch.randn(each.shape, generator=make) * scale for name, each in network.state_dict().items()}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("extractor", "file"),
    [
        (Dinov2, "dinov2_vitl14_pretrain.pth"),
        (Clip, f"clip-vit-b-32-{'40d36571'}"),
        (Inception, "weights-inception-2015-12-05-6726825d.pth"),
    ],
)
def test_without_weights_and_network_one_error_says_everything(extractor, file, offline, tmp_path):
    made = extractor()  # a configuration can be built without them
    assert made.dims["pooled"] in (1024, 512, 2048)
    with pytest.raises(ValueError) as caught:
        made.to("cpu")
    for part in (file, str(tmp_path), "features.weights=PATH", "https://", "Name or service not known"):
        assert part in str(caught.value)


@pytest.mark.parametrize("extractor", [Dinov2, Clip])
def test_another_model_than_there_is_gets_the_nearest_name(extractor):
    with pytest.raises(ValueError, match=r"features.model must be one of .*; did you mean 'vit-l-14'\?"):
        extractor("vit-l14")


@pytest.fixture
def tiny_dinov2(monkeypatch, tmp_path):
    """A ViT of two blocks, its file with the mask token of training, and the network's tensors."""
    monkeypatch.setitem(dinov2.MODELS, TINY, (24, 2, 3))
    monkeypatch.setitem(dinov2.FILES, TINY, ("0" * 64, 1))
    state = random_state(dinov2.VisionTransformer(24, 2, 3))
    path = tmp_path / "tiny.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 24)}, path)
    return path, state


def torchvisions(state):
    """torchvision's vision transformer for 224 x 224 with the tensors of ours; its branches have no learned scale."""
    network = torchvision.models.VisionTransformer(224, 14, 2, 3, 24, 96, num_classes=1)
    network.heads = nn.Identity()
    side, grid = 16, state["pos_embed"][:, 1:].mT.unflatten(2, (37, 37))
    places = nn.functional.interpolate(grid, scale_factor=16.1 / 37, mode="bicubic")
    assert places.shape[2:] == (side, side)
    theirs = {
        "class_token": state["cls_token"],
        "encoder.pos_embedding": torch.cat([state["pos_embed"][:, :1], places.flatten(2).mT], 1),
        "conv_proj.weight": state["patch_embed.proj.weight"],
        "conv_proj.bias": state["patch_embed.proj.bias"],
        "encoder.ln.weight": state["norm.weight"],
        "encoder.ln.bias": state["norm.bias"],
    }
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    for block in range(2):
        ours, here = f"blocks.{block}", f"encoder.layers.encoder_layer_{block}"
        for kind in ("weight", "bias"):
            theirs[f"{here}.self_attention.in_proj_{kind}"] = state[f"{ours}.attn.qkv.{kind}"]
            theirs |= {f"{here}.{b}.{kind}": state[f"{ours}.{a}.{kind}"] for a, b in names.items()}
        for branch, gamma in (("self_attention.out_proj", "ls1"), ("mlp.3", "ls2")):  # into the last linear map
            scale = state[f"{ours}.{gamma}.gamma"]
            theirs[f"{here}.{branch}.weight"] = scale[:, None] * theirs[f"{here}.{branch}.weight"]
            theirs[f"{here}.{branch}.bias"] = scale * theirs[f"{here}.{branch}.bias"]
    network.load_state_dict(theirs)
    return network.eval()


def test_dinov2_is_torchvisions_transformer_with_scaled_branches(tiny_dinov2):
    path, state = tiny_dinov2
    extractor, pixels = Dinov2(TINY, path), noise(2, 224)
    mean, std = ([[[v]] for v in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = torchvisions(state).double()(((pixels / 255 - torch.tensor(mean)) / torch.tensor(std)).double())
    found = extractor(pixels, ["pooled"])["pooled"]
    assert found.shape == (2, extractor.dims["pooled"])
    assert_rounded(found, expected, 50)  # two blocks, sums of up to 588 products
    assert (found[0] - found[1]).abs().max() > 0.01  # else it would compare constants
    assert extractor(noise(1, 32), ["pooled"])["pooled"].isfinite().all()
    assert extractor.name == f"dinov2-{TINY}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def test_dinov2_of_another_size_is_refused_in_one_line(tiny_dinov2):
    with pytest.raises(ValueError, match=r"the \d+ tensors of .* are not those of DINOv2's vit-s-14") as caught:
        Dinov2("vit-s-14", tiny_dinov2[0]).to("cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "num_bytes"), [("vit-s-14", 88_283_115), ("vit-b-14", 346_378_731), ("vit-l-14", 1_217_586_395)]
)
def test_dinov2_has_as_many_numbers_as_the_published_files(model, num_bytes):
    """4 bytes each, with the mask token of training; the rest are names and the archive."""
    with torch.device("meta"):
        network = dinov2.VisionTransformer(*dinov2.MODELS[model])
    numbers = sum(each.numel() for each in network.parameters()) + dinov2.MODELS[model][0]
    assert 0 < num_bytes - 4 * numbers < 150_000


@pytest.fixture
def tiny_clip(monkeypatch, tmp_path):
    monkeypatch.setitem(clip.MODELS, TINY, (32, 64, 2, 16))
    monkeypatch.setitem(clip.MODEL_METADATA, f"clip-{TINY}", {"hash": "0" * 64})
    monkeypatch.setitem(clip.MODEL_URLS, f"clip-{TINY}", "https://example.org/tiny.pt")
    monkeypatch.setitem(clip.MEGABYTES, TINY, 1)
    network = fidelity.VisionTransformer(224, 32, 64, 2, 1, 16)
    visual = {f"visual.{name}": tensor.half().float() for name, tensor in random_state(network).items()}
    state = {**visual, "text_projection": torch.zeros(8, 16), "ln_final.weight": torch.ones(8)}
    path = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(state, path)
    return path, state


class Program(nn.Module):
    """As OpenAI's file: a program whose state dict has the tensors."""

    def __init__(self, state):
        super().__init__()
        self.visual = fidelity.VisionTransformer(224, 32, 64, 2, 1, 16)
        self.text_projection = nn.Parameter(state["text_projection"])
        self.ln_final = nn.LayerNorm(8, bias=False)
        self.load_state_dict(state)
        self.half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_clip_is_torch_fidelitys_own_where_nothing_is_resized(tiny_clip, monkeypatch):
    path, state = tiny_clip
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: Program(state))
    theirs = fidelity.FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path="unused")
    extractor, pixels = Clip(TINY, path), noise(2, 224)
    found = extractor(pixels, ["pooled"])["pooled"]
    assert_rounded(found, theirs(pixels)[0], 50)  # two blocks, sums of up to 3,072 products, in float32 both
    assert (found[0] - found[1]).abs().max() > 0.01  # else it would compare constants
    assert extractor.name == f"clip-{TINY}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_openais_file_is_opened_if_its_hash_is_right_and_no_other_program_is(tiny_clip, monkeypatch, tmp_path):
    path, state = tiny_clip
    program = tmp_path / "program.pt"
    torch.jit.save(torch.jit.trace(Program(state), torch.zeros(1)), program)
    with pytest.raises(ValueError, match="more than tensors"):
        Clip(TINY, program).to("cpu")
    sha256 = hashlib.sha256(program.read_bytes()).hexdigest()
    monkeypatch.setitem(clip.MODEL_METADATA, f"clip-{TINY}", {"hash": sha256})
    extractor = Clip(TINY, program)
    assert extractor.name == f"clip-{TINY}"
    expected = Clip(TINY, path)(noise(2, 32), ["pooled"])["pooled"]
    assert torch.equal(extractor(noise(2, 32), ["pooled"])["pooled"], expected)


def network_of_mine(**options):
    torch.manual_seed(0)
    network = options.pop("network", None) or nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    return Module(network, **{"name": "mine", "size": 8, **options})


def test_any_module_serves_as_features_in_the_range_that_it_wants():
    extractor, pixels = network_of_mine(), noise(4, 8)
    assert extractor.dims == {"pooled": 5}
    linear = extractor._network[1]
    expected = linear((pixels.float() / 127.5 - 1).flatten(1))
    assert_rounded(extractor(pixels, ["pooled"])["pooled"], expected, 20)  # a sum of 192 products
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    expected = linear(
        ((pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]).flatten(1)
    )
    found = network_of_mine(mean=mean, std=std)(pixels, ["pooled"])["pooled"]
    assert_rounded(found, expected, 20)
    assert network_of_mine()(noise(3, 20), ["pooled"])["pooled"].shape == (3, 5)


def test_a_module_may_have_several_layers_and_is_in_eval_mode():
    class Two(nn.Module):
        def forward(self, x):
            return {
                "pooled": nn.functional.dropout(x.mean((2, 3)), 0.9, self.training),
                "logits": x.amax((2, 3))[:, :2],
            }

    extractor = network_of_mine(network=Two())
    assert extractor.dims == {"pooled": 3, "logits": 2}
    assert list(extractor(noise(2, 8), ["logits"])) == ["logits"]
    one, two = (extractor(noise(2, 8), ["pooled"])["pooled"] for _ in range(2))
    assert torch.equal(one, two)


def test_a_modules_hash_is_that_of_its_tensors_whatever_file_they_came_from(tmp_path):
    state = {"1.weight": torch.ones(5, 192), "1.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "a.pth")
    safetensors.torch.save_file(state, tmp_path / "b.safetensors")
    one, two = (network_of_mine(weights=tmp_path / name) for name in ("a.pth", "b.safetensors"))
    assert one.weights_hash == two.weights_hash != network_of_mine().weights_hash
    with pytest.raises(ValueError, match=r"features\.sha256 is 0000"):
        network_of_mine(weights=tmp_path / "a.pth", sha256="0" * 64)
    torch.save({"other": torch.ones(1)}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"the 1 tensors of .* are not those of the network Sequential"):
        network_of_mine(weights=tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": nn.Identity()}, r"must give \[B, d\] .* 'pooled' is \[2, 3, 8, 8\]"),
        ({"network": nn.Flatten(0)}, r"must give \[B, d\]"),
        ({"network": nn.Sequential(nn.Flatten(), nn.Threshold(9, math.nan))}, "finite"),
        ({"network": abs}, "features.network must be a torch.nn.Module"),
        ({"name": "a b"}, "features.name must be letters"),
        ({"size": None}, "features.size must be a positive integer, got None"),
        ({"mean": [0.5] * 3}, "features.mean and features.std belong together"),
        ({"mean": [0.5], "std": [0.5]}, "features.mean must be three numbers"),
        ({"mean": [0.5] * 3, "std": [0, 1, 1]}, "features.std must be three numbers greater than 0"),
        ({"sha256": "0" * 64}, "features.sha256 has no effect"),
    ],
)
def test_what_cannot_be_features_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        network_of_mine(**options)

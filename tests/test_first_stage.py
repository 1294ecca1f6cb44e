"""First stages through the commands: trained, resumed, measured, on two processes; and where they do not belong."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from precision import assert_rounded
from processes import command, ended
from small_models import QUICK, Quarters
from small_runs import SMALL, composed, configured, csv_rows

import ddpm
from ddpm.checkpoint.folder import list_checkpoints, remove, step_of
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import evaluate, export, sample, train
from ddpm.commands.verify_resume import compare_runs
from ddpm.config import build, load
from ddpm.metrics.fidelity import psnr, ssim
from ddpm.metrics.perceptual import EXTRACTORS, LPIPS, FeatureDistance

BASE = (
    *(word for word in SMALL if not word.startswith(("callbacks.", "sampler."))),
    *("experiment=first_stage_mnist", "data=digits", "data.num_val=32", "data.num_train=64", "logger=csv"),
    *("loss.adversary_start=2", "callbacks.reconstructions.num_images=4"),
)
SMALL_ADVERSARY = ("adversary.base_channels=8", "adversary.num_layers=1")
KL = (*BASE, *SMALL_ADVERSARY, "model=autoencoder_tiny")
VQ = (*BASE, *SMALL_ADVERSARY, "model=autoencoder_vq_tiny", "loss=first_stage_vq", "model.num_codes=16")
SMOOTH = (
    *("optimizer.eps=1.0", "optimizer.lr=0.1", "optimizer.fused=false", "optimizer.cosine_decay=false"),
    *("adversary_optimizer.eps=1.0", "adversary_optimizer.fused=false", "ema.decay=[]"),
)
"""With a large eps Adam's steps are smooth in the gradients, so that rounding stays rounding."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(*KL)`: the checkpoint of a small run."""
    made = {}

    def checkpoint(*words):
        if words not in made:
            made[words] = tmp_path_factory.mktemp("first_stage") / "run"
            train.run_train(configured("train", made[words], *words))
        return made[words] / "checkpoints" / "last.ckpt"

    return checkpoint


def weights(folder):
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("words", [KL, VQ], ids=["kl", "vq"])
def test_both_kinds_train_log_and_draw(trained, words):
    run = trained(*words).parents[1]
    rows = csv_rows(run / "metrics.csv")
    assert float(rows[-1]["train/part/error"]) < float(rows[0]["train/part/error"])
    assert [bool(row["train/part/balance"]) for row in rows if row["train/loss"]] == [False, True]
    assert [bool(row["train/adversary/part/logit_real"]) for row in rows if row["train/loss"]] == [False, True]
    assert "train/part/kl" in rows[0] if words == KL else "train/part/commitment" in rows[0]
    assert (run / "reconstructions" / "00000004.png").exists()
    assert not (run / "samples").exists()
    assert not any(name.startswith("perceptual") for name in weights(run))


def test_before_its_start_the_adversary_stays_and_counts(config, tmp_path):
    words = (*KL, "loss.adversary_start=9", f"run_dir={tmp_path / 'run'}")
    before = build.module(config("train", *words)).state_dict()
    train.run_train(config("train", *words))
    stored = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for name, value in stored["state_dict"].items():
        if name.startswith("adversary."):
            assert torch.equal(value, before[name])
    steps = {state["step"].item() for state in stored["optimizer_states"][1]["state"].values()}
    assert steps == {4.0}


def test_a_step_is_that_of_the_losses_written_out(config, tmp_path):
    """Adam's first step is lr g / (|g| + eps). The balance is of the whole step; D meets the new network."""
    words = (*KL, *SMOOTH, "trainer.max_steps=1", "loss.adversary_start=0", "trainer.accumulate_grad_batches=2")
    settings = config("train", *words, f"run_dir={tmp_path / 'run'}")
    module, data = build.module(settings), build.data(config("train", *words, "trainer.accumulate_grad_batches=1"))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    for turn in module.turns:
        terms = module.loss_terms(turn, batch, epoch=0, step=0)
        parameters = list(turn.network.parameters())
        gradients = torch.autograd.grad(terms.total.mean(), parameters, retain_graph=True)
        if terms.balanced is not None:
            apart = torch.autograd.grad(terms.balanced.values.mean(), parameters, materialize_grads=True)
            place = next(k for k, p in enumerate(parameters) if p is module.network.decoder.out.weight)
            factor = 0.5 * gradients[place].norm() / (apart[place].norm() + 1e-4)
            gradients = [own + factor * other for own, other in zip(gradients, apart, strict=True)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            warmed = 0.5 if turn.name == "network" else 1
            parameter.data -= 0.1 * warmed * gradient / (gradient.abs() + 1)
    train.run_train(settings)
    for name, value in weights(tmp_path / "run").items():
        assert_rounded(value, module.state_dict()[name], 2000, scale=1)


@pytest.mark.parametrize("words", [KL, VQ], ids=["kl", "vq"])
def test_a_resumed_run_is_the_same_as_one_without_a_break(config, tmp_path, words):
    words = (*words, "trainer.max_steps=5", "checkpoint_every_n_steps=1", "keep.last=9", "sample_every_n_steps=2")
    train.run_train(config("train", *words, f"run_dir={tmp_path / 'whole'}"))
    for step in (1, 3):
        folder = tmp_path / f"resumed{step}"
        train.run_train(config("train", *words, f"run_dir={folder}"))
        for path in list_checkpoints(folder / "checkpoints"):
            if step_of(path) > step:
                remove(path)
        train.run_train(config("train", *words, f"run_dir={folder}", "resume.path=auto"))
        assert not any(compare_runs(tmp_path / "whole", folder).values()), step


@pytest.mark.slow  # compiles
def test_a_compiled_first_stage_learns_the_same(config, tmp_path):
    words = (*KL, *SMOOTH, "loss.adversary_start=1", "logger=none", "callbacks.reconstructions=null", "trainer=cpu")
    for compile in ("false", "true"):
        train.run_train(config("train", *words, f"compile={compile}", f"run_dir={tmp_path / compile}"))
    for name, value in weights(tmp_path / "false").items():
        assert_rounded(weights(tmp_path / "true")[name], value, 2000, scale=1)


def test_two_processes_learn_what_one_learns(config, tmp_path):
    words = (*KL, *SMOOTH, "loss.adversary_start=1", "logger=none", "callbacks.reconstructions=null")
    train.run_train(config("train", *words, f"run_dir={tmp_path / 'alone'}"))
    code, output = ended(command(tmp_path, *words, "trainer.devices=2"))
    assert code == 0, output
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    two = weights(run)
    for name, value in weights(tmp_path / "alone").items():
        assert_rounded(two[name], value, 5000, scale=1)


def test_published_norm_trains_with_statistics_that_are_saved(config, tmp_path):
    train.run_train(config("train", *KL, "adversary.norm=batch", f"run_dir={tmp_path / 'run'}"))
    means = [value for name, value in weights(tmp_path / "run").items() if name.endswith("running_mean")]
    assert means
    assert all(mean.any() for mean in means)


def test_without_an_adversary_one_network_is_trained(config, tmp_path):
    words = (*KL, "adversary=none", "adversary_optimizer=none", f"run_dir={tmp_path / 'run'}")
    train.run_train(config("train", *words))
    assert not any(name.startswith("adversary") for name in weights(tmp_path / "run"))
    assert len(build.module(config("train", *words)).turns) == 1


# Measured


@pytest.mark.filterwarnings("ignore:FID of 32")
@pytest.mark.parametrize("words", [KL, VQ], ids=["kl", "vq"])
def test_reconstructions_are_measured(config, trained, tmp_path, monkeypatch, words, capsys):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.Inception", Quarters)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    path = trained(*words)
    evaluate.run_evaluate(
        config(
            "evaluate",
            f"ckpt={path}",
            "metric=reconstruction",
            "trainer=cpu",
            "batch_size=5",
            f"out={tmp_path / 'found'}",
        )
    )
    (file,) = (tmp_path / "found").glob("*.json")
    found = json.loads(file.read_text())["metrics"]
    model, _ = load.from_checkpoint(path, OmegaConf.create())
    data = build.data(config("train", *words))
    data.prepare_data()
    images = data.split("val")
    (pixels,) = images.pixels.reader(persistent=False).read([images.indices])
    x = pixels.float() / 127.5 - 1
    network = model.weights("ema")
    with torch.no_grad():
        moments = network.moments(x)
        y = network.decode(network.mean(moments)).clamp(-1, 1)
    assert found["psnr_32"] == pytest.approx(psnr(y, x).mean().item(), rel=1e-5)
    assert found["ssim_32"] == pytest.approx(ssim(y, x).mean().item(), rel=1e-5)
    assert found["rfid_quarters_32"] >= 0
    if words == KL:
        assert found["kl_32"] == pytest.approx(network.kl(moments).mean().item(), rel=1e-5)
        std = (
            network.mean(moments).double().var((0, 2, 3), unbiased=False)
            + network.std(moments).double().square().mean((0, 2, 3))
        ).sqrt()
        assert [found[f"z_std_{c}_32"] for c in range(3)] == pytest.approx(std.tolist(), rel=1e-5)
    else:
        share = network.nearest(moments).flatten().bincount(minlength=16) / moments[:, 0].numel()
        assert found["codes_used_32"] == (share > 0).double().mean().item()
        assert found["perplexity_32"] == pytest.approx(torch.special.entr(share).sum().exp().item(), rel=1e-5)
    assert "skipped: LPIPS" in capsys.readouterr().out


# Perceptual distances


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A file of random weights in the shapes of torchvision's VGG-16."""
    from torchvision.models import vgg16

    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = vgg16(weights=None).features.state_dict()
    drawn = {f"features.{k}": torch.randn(v.shape) / max(v[0].numel(), 9) ** 0.5 for k, v in shapes.items()}
    torch.save(drawn, path)
    return path


def test_lpips_is_that_of_torchmetrics_and_never_drops_out(vgg, monkeypatch):
    from torchmetrics.functional.image import lpips as theirs
    from torchvision.models import vgg16

    def pretrained(net, pretrained):
        network = vgg16(weights=None)
        network.load_state_dict(torch.load(vgg), strict=False)
        return network.features

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    ours = LPIPS(vgg).train()
    monkeypatch.setattr(theirs, "_get_tv_model_features", pretrained)
    expected = theirs.learned_perceptual_image_patch_similarity(x, y, "vgg", reduction="none")
    assert_rounded(ours(x, y), expected, 100)
    assert not ours(x, x).any()
    assert_rounded(ours(x[:, :1], y[:, :1]), ours(x[:, :1].expand(-1, 3, -1, -1), y[:, :1].expand(-1, 3, -1, -1)), 10)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    (gradient,) = torch.autograd.grad(ours(x.requires_grad_(), y).sum(), x)
    assert gradient.abs().max() > 0


def test_lpips_of_other_weights_has_another_result(vgg, config, trained, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({key: 2 * value for key, value in torch.load(vgg).items()}, other)
    ckpt = trained(*VQ, "data.size=32", "data.resize=bilinear")  # halved five times
    words = (f"ckpt={ckpt}", "trainer=cpu", "metric=reconstruction", "metric.reconstruction.features=null")
    words += ("metric.reconstruction.num_images=2", "metric.reconstruction.split=train", f"out={tmp_path / 'found'}")
    for path in (vgg, other, vgg):
        evaluate.run_evaluate(config("evaluate", *words, f"metric.reconstruction.weights={path}"))
    results = [json.loads(path.read_text()) for path in (tmp_path / "found").glob("*.json")]
    assert len(results) == 2
    assert len({result["metrics"]["lpips_2"] for result in results}) == 2


def test_lpips_without_weights_names_the_remedies(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *arguments, **others: (_ for _ in ()).throw(OSError("offline"))
    )
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth.*not in .*Put the file there, give perceptual\.weights"):
        train.run_train(config("train", *KL, "perceptual=lpips"))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_distance_of_features_is_none_for_equal_images_and_teaches_the_others(name):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(3, 1, 28, 28, generator=generator) * 2 - 1 for _ in range(2))
    distance = FeatureDistance(name)
    assert not distance(x, x).any()
    assert (distance(x, y) > distance(x, (x + 0.1 * y) / 1.1)).all()
    assert_rounded(distance(x, y)[:1], distance(x[:1], y[:1]), 100)
    (gradient,) = torch.autograd.grad(distance(x.requires_grad_(), y).sum(), x)
    assert gradient.flatten(1).norm(dim=1).min() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


# Where they do not belong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loss=first_stage_vq",), "loss=first_stage_vq needs a first stage with a codebook"),
        (("model=unet_tiny",), "loss=first_stage_kl needs a first stage with a Gaussian latent.*got model=UNet"),
        (("schedule.num_timesteps=10",), r"schedule\.num_timesteps must be 1 for a first stage"),
        (("callbacks=default",), r"callbacks\.samples needs images, but a first stage generates none: .*first_stage"),
        (("metric=fid",), "metric needs images, but a first stage generates none: add metric=null"),
        (("adversary.norm=batch", "trainer.accumulate_grad_batches=2"), r"adversary\.norm=batch takes statistics of"),
        (("trainer.strategy=fsdp",), r"trainer\.strategy=fsdp shards one network"),
        (("trainer.strategy=fsdp", "adversary=none"), r"trainer\.strategy=fsdp gathers weights for a whole network"),
        (("adversary_optimizer=none",), "an adversary needs its own optimizer"),
        (("cond=class",), "model=KLAutoencoder does not support cond=ClassLabel"),
        (("model.patch_size=3",), r"image size 8 x 8 is not divisible by 6"),
        (("adversary.num_layers=2",), r"the shape of images must be \[1, H, W\] with at least 12 pixels a side"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_error(config, words, message):
    changed = tuple(f"{word.partition('=')[0]}." for word in words)
    kept = [word for word in KL if not word.startswith(changed)]
    with pytest.raises(ValueError, match=message):
        train.run_train(config("train", *kept, *words))


PLAIN = (*QUICK, "schedule=vp", "schedule.num_timesteps=1", "sampler.steps=null", "model=autoencoder_tiny")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"loss=SimpleLoss does not train model=KLAutoencoder: it is a first stage, .*loss=first_stage_kl"),
        (
            ("loss=first_stage_kl", "adversary=ddgan_tiny", "adversary_optimizer=adam"),
            "adversary=DDGANDiscriminator judges pairs of times, not images: choose adversary=patch",
        ),
    ],
)
def test_what_a_first_stage_is_not_trained_with_is_one_error(config, words, message):
    with pytest.raises(ValueError, match=message):
        train.run_train(config("train", *PLAIN, *words))


def test_parts_of_first_stages_are_refused_elsewhere(small):
    words = ("callbacks.samples=null", "callbacks.denoising=null")
    made = "{_target_: ddpm.training.callbacks.reconstruction_grid.ReconstructionGrid, num_images: 4, every_n_steps: 5}"
    grid = f"+callbacks.reconstructions={made}"
    with pytest.raises(ValueError, match=r"callbacks\.reconstructions needs a first stage"):
        train.run_train(small(*words, grid))
    with pytest.raises(ValueError, match="perceptual has no effect in this loss"):
        train.run_train(small("perceptual=features"))


def test_a_first_stage_generates_nothing(config, trained, tmp_path):
    path = trained(*KL)
    told = rf"ckpt={path} is a first stage, which generates no images: .*codec=latent codec\.first_stage={path}"
    with pytest.raises(ValueError, match=told):
        sample.run_sample(config("sample", f"ckpt={path}", "trainer=cpu"))
    with pytest.raises(ValueError, match=told):
        sample.run_sample(config("sample", f"ckpt={path}", "trainer=cpu", "task=denoise"))
    for metric in ("fid", "nll"):
        with pytest.raises(ValueError, match=told):
            evaluate.run_evaluate(
                config("evaluate", f"ckpt={path}", f"metric={metric}", "trainer=cpu", "features=mnist")
            )
    with pytest.raises(ValueError, match="this model is a first stage, which generates no images"):
        ddpm.load(path).sample(2)


@pytest.mark.filterwarnings("ignore:FID of 32")
def test_an_exported_folder_is_a_first_stage_too(config, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.Inception", Quarters)
    folder = tmp_path / "exported"
    export.run_export(composed("export", f"ckpt={trained(*KL)}", f"out={folder}", "format=safetensors"))
    with pytest.raises(ValueError, match=rf"ckpt={folder} is a first stage"):
        sample.run_sample(config("sample", f"ckpt={folder}", "trainer=cpu"))
    words = ("metric=reconstruction", "trainer=cpu", "data=digits", "data.num_val=32", f"out={tmp_path / 'found'}")
    evaluate.run_evaluate(config("evaluate", f"ckpt={folder}", *words))
    assert list((tmp_path / "found").glob("*.json"))


def test_a_model_is_no_first_stage(config, run_of):
    path = run_of() / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match="metric=reconstruction needs a first stage, but model=UNet is none"):
        evaluate.run_evaluate(config("evaluate", f"ckpt={path}", "metric=reconstruction", "trainer=cpu"))


def test_a_first_stage_guides_nothing(trained, run_of):
    path, guide = run_of() / "checkpoints" / "last.ckpt", trained(*KL)
    with pytest.raises(ValueError, match=r"guidance\.guide=.* is a first stage"):
        ddpm.load(path, "guidance=autoguidance", f"guidance.guide={guide}")
    with pytest.raises(ValueError, match=r"guidance\.classifier=.* is not a classifier"):
        ddpm.load(path, "guidance=classifier", f"guidance.classifier={guide}")


def test_the_picture_shows_originals_above_their_reconstructions(trained):
    from PIL import Image

    picture = np.asarray(Image.open(trained(*KL).parents[1] / "reconstructions" / "00000004.png"))
    assert picture.shape[0] == 17 + 2 + 2 * 66  # a title, and two rows of images enlarged to 64 pixels
    assert picture.shape[1] > 2 + 4 * 66  # the words of the rows stand before the images

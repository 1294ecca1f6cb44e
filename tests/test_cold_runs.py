"""Runs of Cold Diffusion: what a checkpoint knows, what samples begin at, and the same to the bit when resumed."""

import pytest
import torch
from omegaconf import OmegaConf
from precision import roundings

from ddpm.base.images import to_uint8
from ddpm.checkpoint.folder import list_checkpoints, remove
from ddpm.commands import sample, train
from ddpm.commands.verify_resume import compare_runs
from ddpm.config import build, load

COLD = (
    *("schedule=steps", "schedule.num_timesteps=3", "objective=x0", "error=mae", "sampler=cold"),
    *("sampler.steps=null", "data.num_train=64", "data.num_val=32", "logger=csv"),
)
TO_MEAN = ("process=blur", "process.kernel=5", "process.to_mean=true")
PROCESSES = {
    "blur": ("process=blur", "process.kernel=5"),
    "to_mean": TO_MEAN,
    **{name: (f"process={name}",) for name in ("mask", "pixelate", "snow", "snowfall", "fade", "animorph")},
}


@pytest.fixture
def trained(run_of):
    """`trained("process=mask", ...)`: the module and the configuration of a small run's checkpoint."""
    return lambda *words: load.from_checkpoint(run_of(*COLD, *words) / "checkpoints" / "last.ckpt", OmegaConf.create())


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_trains_draws_its_pictures_and_comes_back_from_its_checkpoint(trained, run_of, name):
    module, _ = trained(*PROCESSES[name])
    pictures = {path.parent.name for path in run_of(*COLD, *PROCESSES[name]).rglob("*.png")}
    assert {"ema", "raw", "denoising"} <= pictures
    assert module.needs_images == (name in ("blur", "mask", "snow", "snowfall"))
    if not module.needs_images:
        images = module.generate(torch.arange(3), "ema")
        assert images.shape == (3, 1, 8, 8)
        assert images.isfinite().all()


def test_what_is_fitted_is_that_of_the_training_images(trained):
    """The Gaussian of the images' means, which are computed here from the pixels themselves."""
    module, config = trained(*TO_MEAN)
    data = build.data(config).split("train")
    means = torch.cat(list(data.batches(7))).double().mean((2, 3))[:, 0]
    fitted = module.config["fitted"]["process"]["fitted"]
    assert fitted["mean"][0] == pytest.approx(means.mean().item(), abs=roundings(4))
    assert fitted["covariance"][0][0] == pytest.approx(means.var(correction=0).item(), abs=roundings(4))


def test_with_perfect_symmetry_all_pixels_of_the_beginning_are_alike(trained):
    module, _ = trained(*TO_MEAN, "process.symmetry_noise=0")
    assert module.start(torch.arange(4)).std((1, 2, 3)).max() < roundings(4)
    broken, _ = trained(*TO_MEAN)
    spread = broken.start(torch.arange(64)).std((1, 2, 3)).mean()
    assert spread.item() == pytest.approx(0.002, rel=0.05)


def test_samples_without_a_prior_begin_at_degraded_images(trained):
    module, config = trained(*PROCESSES["mask"])
    images = next(build.data(config).split("val").batches(4))
    ids = torch.arange(4)
    process = module.sampler.process
    begun = module.start(ids, images)
    assert torch.equal(begun, process.apply(images, process.draw(images, module.sample_rng.at(3, ids)), 3))
    some = module.generate(ids[2:], "ema", images=images[2:])
    restored = module.generate(ids, "ema", images=images)
    assert torch.allclose(some, restored[2:], rtol=0, atol=roundings(200))
    assert to_uint8(restored).shape == (4, 1, 8, 8)


def test_sample_py_says_what_a_model_without_a_prior_is_for(run_of, config):
    ckpt = run_of(*COLD, *PROCESSES["blur"]) / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"does not remove all information at T, .* choose task=restoration"):
        sample.run_sample(config("sample", f"ckpt={ckpt}", "trainer=cpu"))


@pytest.mark.parametrize("name", ["mask", "animorph", pytest.param("snow", marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_same_to_the_bit(small, copied, run_of, name):
    words = (*COLD, *PROCESSES[name], "checkpoint_every_n_steps=1", "keep.last=20", "trainer.max_steps=6")
    run = copied(*words)
    for path in list_checkpoints(run / "checkpoints")[:3]:
        remove(path)
    train.run_train(small(*words, "resume.path=auto"))
    assert not any(compare_runs(run_of(*words), run).values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("objective=eps",), "schedule=steps has times but no noise"),
        (("sampler=ancestral", "sampler.steps=null"), "sampler=ancestral needs .* use sampler=cold"),
        (("loss=vlb",), "needs closed-form step distributions"),
        (("weight=min_snr",), "schedule=steps has times but no noise"),
        (("noise=offset",), "process=Mask does not use noise=Offset"),
        (("schedule=cosine",), "choose schedule=steps"),
        (("timestep_spacing=log_snr",), "schedule=steps has times but no noise"),
    ],
)
def test_what_does_not_go_with_a_cold_process_is_refused_before_training(small, tmp_path, overrides, message):
    chosen = [each for each in COLD if each.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    if "schedule=cosine" in overrides:
        chosen.remove("schedule.num_timesteps=3")
    with pytest.raises(ValueError, match=message):
        train.run_train(small(*chosen, "process=mask", *overrides))
    assert not list(tmp_path.rglob("*.ckpt"))

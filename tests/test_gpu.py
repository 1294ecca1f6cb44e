"""One NVIDIA GPU through the commands: it trains and samples what the CPU does, and a resumed run is the same run."""

import json

import pytest
import torch
from small_models import QUICK
from small_runs import configured, csv_rows

import ddpm
from ddpm.checkpoint import folder as files
from ddpm.commands import evaluate, train
from ddpm.commands.verify_resume import compare_runs
from ddpm.metrics.extractors.base import full_float32
from ddpm.networks.attention import Attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

FEW = (*(word for word in QUICK if word != "trainer=cpu"), "logger=csv", "trainer.log_every_n_steps=1")
DDGAN = (
    *("loss=ddgan", "adversary=ddgan_mlp", "adversary_optimizer=adam", "objective=x0", "schedule=vp", "clip=none"),
    *("schedule.num_timesteps=4", "sampler.steps=null", "model=ddgan_mlp", "model.width=16", "adversary.width=16"),
)
UNSHAPED = tuple(word for word in FEW if not word.startswith("model."))
FIRST_STAGE = ("experiment=first_stage_mnist", "data=digits", "data.batch_size=16", "loss.adversary_start=2")
STAGE = (
    *FIRST_STAGE,
    "logger=csv",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "~callbacks.reconstructions",
    "adversary.num_layers=1",
)
TRAININGS = {
    "eps": (*FEW, "objective=eps"),
    "v": FEW,
    "class": (*FEW, "cond=class"),
    "learned variance": (*FEW, "variance=learned_range", "loss=hybrid", "objective=eps"),
    "blur": (*FEW, "process=blur", "schedule=steps", "objective=x0", "sampler=cold", "error=mae"),
    "mask": (*FEW, "process=mask", "schedule=steps", "objective=x0", "sampler=cold"),
    "ddgan": (*UNSHAPED, *DDGAN),
    "kl": STAGE,
    "vq": (*STAGE, "loss=first_stage_vq", "model=autoencoder_vq_tiny"),
}
"""What is trained, by name."""


def run(folder, *words):
    """A training in `folder`: its logged losses."""
    train.run_train(configured("train", folder, *words))
    return [float(row["train/loss"]) for row in csv_rows(folder / "metrics.csv") if row.get("train/loss")]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_has_the_losses_that_it_has_on_a_cpu(tmp_path, name):
    """To the accuracy of TF32, in which a GPU multiplies with precision=32-true."""
    words = TRAININGS[name]
    there = run(tmp_path / "gpu", *words, "trainer.precision=32-true")
    here = run(tmp_path / "cpu", *words, "trainer=cpu")
    assert len(there) == 4
    torch.testing.assert_close(torch.tensor(there), torch.tensor(here), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_works_in_half_precision(tmp_path, name, precision):
    losses = run(tmp_path / "run", *TRAININGS[name], f"trainer.precision={precision}")
    assert len(losses) == 4
    assert torch.tensor(losses).isfinite().all()


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        *((name, "bf16-mixed", ()) for name in TRAININGS),
        *(("v", precision, ()) for precision in ("32-true", "16-mixed")),
        *(("v", "bf16-mixed", (word,)) for word in ("compile=true", "channels_last=true")),
    ],
)
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path, name, precision, words):
    words = (*TRAININGS[name], "trainer.max_steps=6", "checkpoint_every_n_steps=2", *words)
    words += (f"trainer.precision={precision}", "trainer.deterministic=true")
    for name in ("whole", "stopped"):
        run(tmp_path / name, *words)
    for path in files.list_checkpoints(tmp_path / "stopped" / "checkpoints"):
        if files.step_of(path) > 2:
            files.remove(path)
    run(tmp_path / "stopped", *words, "resume.path=auto")
    assert not any(compare_runs(tmp_path / "whole", tmp_path / "stopped").values())


@pytest.mark.parametrize("name", [name for name in TRAININGS if name not in ("kl", "vq", "blur", "mask")])
def test_samples_are_those_of_a_cpu_and_do_not_depend_on_the_batch(tmp_path, name):
    run(tmp_path, *TRAININGS[name])
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    here, there = (
        ddpm.load(checkpoint, f"trainer.accelerator={kind}", "trainer.precision=32-true") for kind in ("cpu", "gpu")
    )
    expected = here.sample(12)
    with full_float32(torch.device("cuda")):  # without TF32
        torch.testing.assert_close(there.sample(12), expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(there.sample(12, batch_size=5), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_attention_over_few_pixels(size, dtype):
    """Of one pixel, strides may be anything, and fast kernels refused some."""
    attention = Attention(8, 1, 4).cuda()
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(3, 8, size, size)
    with torch.autocast("cuda", dtype, enabled=dtype == torch.bfloat16):
        found = attention(x.cuda()).float().cpu()
    torch.testing.assert_close(found, attention.cpu()(x), rtol=0, atol=0.1)


def test_the_likelihood_by_the_flow_is_that_of_a_cpu(tmp_path):
    run(tmp_path / "run", *FEW)
    words = (f"ckpt={tmp_path / 'run'}", "metric=nll_ode", "metric.nll_ode.num_images=4", "metric.nll_ode.steps=4")
    for name, more in {"gpu": ("trainer.precision=32-true",), "cpu": ("trainer=cpu",)}.items():
        folder = tmp_path / name
        evaluate.run_evaluate(configured("evaluate", folder, *words, *more, f"out={folder}"))
    here, there = (json.loads(next((tmp_path / name).glob("*.json")).read_text()) for name in ("cpu", "gpu"))
    for name, value in here["metrics"].items():
        assert there["metrics"][name] == pytest.approx(value, rel=1e-2)


@pytest.mark.filterwarnings("ignore:.* of 64 generated")
def test_a_run_is_measured_while_it_trains_and_after(tmp_path):
    metric = ("metric=fid", "features=mnist", "evaluate.num_samples=64", "sample_every_n_steps=2")
    run(tmp_path / "run", *FEW, *metric)
    row = csv_rows(tmp_path / "run" / "metrics.csv")[-1]
    assert [name for name in row if name.startswith("eval/fid")]
    words = (f"ckpt={tmp_path / 'run'}", "metric=[fid,prdc]", "num_samples=64", "features=mnist")
    evaluate.run_evaluate(configured("evaluate", tmp_path / "results", *words))

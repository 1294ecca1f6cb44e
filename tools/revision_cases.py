"""The trainings of `tools/compare_revisions.py`, with the option names of this checkout."""

SHORT = (
    *(
        "trainer=cpu",
        "trainer.max_steps=30",
        "trainer.log_every_n_steps=1",
        "logger=csv",
        "checkpoint_every_n_steps=30",
    ),
    *("data.batch_size=8", "data.num_train=256", "optimizer.warmup_steps=5", "run_dir={folder}"),
)
DRAWN = ("callbacks.samples.num_samples=8", "callbacks.denoising=null", "sample_every_n_steps=30")
SCORED = (*DRAWN, "metric=fid", "features=mnist", "evaluate.num_samples=16")
VALIDATED = ("data.num_val=64", "trainer.val_check_interval=30")
TINY = ("model.base_channels=8", "model.num_groups=4")
FEW = ("sampler.steps=4",)

CASES = {
    "mnist": ("experiment=mnist", *TINY, *FEW, *SCORED),
    "mnist_class": ("experiment=mnist_class", *TINY, *FEW, *SCORED),
    "captions": ("model=caption_unet_tiny", "cond=caption", *TINY, *FEW, *SCORED),
    "superres": ("cond=low_res", "data.num_val=500", *TINY, *FEW, *SCORED),
    "classifier": ("experiment=classifier_mnist", *VALIDATED),
    "dpm2015": ("experiment=dpm2015_mnist", *TINY, *FEW, *SCORED),
    "binomial": ("experiment=binomial_mnist", *TINY, *FEW, *SCORED),
    "swirl": ("experiment=swirl", *DRAWN, *FEW, *VALIDATED),
    "iddpm": (
        *("experiment=mnist", "objective=eps", "variance=learned_range", "loss=hybrid", "time_sampler=loss_aware"),
        *(*TINY, *FEW, *SCORED),
    ),
    "cold_blur": ("experiment=cold_mnist", *TINY, *SCORED),
    "anomaly": ("experiment=anomaly_mnist", *TINY, *FEW, *SCORED),
    "two_processes": ("experiment=mnist", *TINY, *FEW, *SCORED, "trainer.devices=2"),
    "accumulation": ("experiment=mnist", *TINY, *FEW, *SCORED, "trainer.accumulate_grad_batches=2"),
}
"""Overrides of train.py by case; the names of cases are the same in every checkout."""

RAW, AVERAGED = "network.", "averages.copies.0."
"""Prefixes of raw and averaged weights in a checkpoint."""

SAMPLES = "samples/ema/00000030.png"

"""Each field that a command of sample.py or evaluate.py may set is in one of three classes, which its effect confirms.

A field in conf/ that is in none, or in two, fails the first test.
"""

import copy

import pytest
from omegaconf import DictConfig, OmegaConf
from small_runs import ROOT, composed

from ddpm.checkpoint import groups
from ddpm.commands import evaluate
from ddpm.commands.short_forms import expand_short_forms
from ddpm.config import wiring
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedules.betas import linear
from ddpm.generation.identity import describe_groups, describe_part, image_settings
from ddpm.metrics.protocol import read_result

IMAGES = {
    "": "class format images negative_prompt num_real num_repeats num_samples prompt reference seed size split weights",
    "ckpt": "",
    "clip": "largest percentile",
    "codec": "first_stage sample scale shift weights",
    "features": "mean model name size std weights",
    "guidance": "at classifier form guide interval order rescale rescale_of scale weights",
    "model": "centers covariance mean num radius std",
    "noise": "discount frequency octaves persistence strength unit_variance",
    "process": "center colour cumulative fitted growth initial kernel length level levels mixing.num_timesteps mode "
    "others.data.channels others.data.resize others.data.size padding rate reverse_noise rounding severity shift sigma "
    "sigma_step symmetry_noise to_mean value whiten",
    "sampler": "churn churn_high churn_low clipped_eps corrections eta euler_above largest_growth largest_step "
    "latent lower_order_below lower_order_final noise_scale predictor_order snr steps timestep_spacing variance",
    "schedule": "base beta beta_end beta_max beta_min beta_start end fraction max_beta min_beta num_timesteps "
    "of.num_timesteps offset rescale size start step1_beta t_min temperature",
    "sweep": "samplers scales steps",
    "task": "base factor images jump_length mask num_columns num_completions num_mixtures num_resamples num_samples "
    "num_times of samples small snr split steps t times",
    "text": "depth head_channels num_heads num_tokens num_words path skip_layers token_channels tokenizer",
    "timestep_spacing": "offset rho sections sigma_max times",
    "trainer": "precision",
    "variance": "num_images num_times",
    "anomalies": "axis crop kinds min_area resize root seed share_good slices step threshold window",
    "metric.anomaly": "average frequencies image_score num_bootstrap num_images repeats seed split threshold times",
    "metric.cas": "l2 num_folds",
    "metric.class_coverage": "ball k",
    "metric.fid_inf": "num_points smallest",
    "metric.kid": "num_subsets subset_size",
    "metric.memorization": "layer ratio",
    "metric.memorization_pixels": "layer ratio",
    "metric.nll": "floor num_images split",
    "metric.nll_ode": "num_images num_probes split steps",
    "metric.prdc": "ball ball_coverage k k_coverage",
    "metric.prdc_per_class": "of.k of.k_coverage",
    "metric.rate_distortion": "num_images split variance",
    "metric.reconstruction": "features num_images split weights",
    "metric.restoration": "features num_images split t",
    "metric.sampler_error": "samplers schedule seed steps",
    "metric.sfid": "layer name",
}
"""Fields that change images or values: the identity of images, or the name of a result, contains them."""
ROUNDING = {
    "": "batch_size features_batch_size",
    "trainer": "accelerator deterministic devices num_nodes strategy",
    **dict.fromkeys((f"metric.{each}" for each in ("anomaly", "nll", "nll_ode", "rate_distortion")), "batch_size"),
    **dict.fromkeys(("metric.reconstruction", "metric.restoration"), "batch_size features_batch_size"),
}
"""Fields that change only rounding."""
RESAMPLES = "number of resamples of an error bar; the value does not depend on it"
TRAINING = "used in training only"
NOTHING = {
    **dict.fromkeys(("gif", "keep_images", "out", "run_dir", "save_statistics"), "what is written, and where"),
    "features.sha256": "a check of the file",
    "text.memory_limit_mb": "how many embeddings are kept",
    **{f"metric.{each}.num_shown": "size of a picture" for each in ("anomaly", "reconstruction", "restoration")},
    **{f"metric.{each}.num_resamples": RESAMPLES for each in ("digit_modes", "fid", "fid_inf", "is", "sfid")},
    **dict.fromkeys(("metric.point_modes.num_resamples", "metric.fid_per_class.of.num_resamples"), RESAMPLES),
    **dict.fromkeys(("trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.max_steps"), TRAINING),
    **dict.fromkeys(("trainer.limit_val_batches", "trainer.val_check_interval"), TRAINING),
    **dict.fromkeys(("trainer.log_every_n_steps", "trainer.profiler"), "what is reported"),
    "limits.timeout_minutes": "how long a process waits for others",
}
"""Fields that change neither, with the reason."""
WHOLE = {
    "data": "the content hash of its images is in a result, and its settings are in the record of a task",
    "logger": "what is reported",
    "callbacks": TRAINING,
}
"""Groups of which no field needs a class of its own."""


def listed(classes):
    return {f"{group}.{field}".strip(".") for group, names in classes.items() for field in names.split() or [""]}


def groups_of(program):
    defaults = OmegaConf.load(ROOT / "conf" / f"{program}.yaml").defaults
    return {key for each in defaults if isinstance(each, DictConfig) for key in each if key.find("override")} - {*WHOLE}


def leaves(part, name=""):
    if OmegaConf.is_dict(part) and len(part):
        parts = {f"{name}.{key}": value for key, value in part.items_ex(resolve=False) if key[0] != "_"}
        return {leaf for key, value in parts.items() for leaf in leaves(value, key)}
    return {name.removeprefix(".")}


def options(group):
    """The content of the files of a group. Of the models, a command may choose only those without weights."""
    paths = sorted((ROOT / "conf" / group).glob("oracle_*.yaml" if group == "model" else "*.yaml"))
    return {path.stem: OmegaConf.load(path) for path in paths}


def fields():
    """The fields of both programs and of all options of their groups."""
    found = set()
    for program in ("sample", "evaluate"):
        own = OmegaConf.masked_copy(
            part := OmegaConf.load(ROOT / "conf" / f"{program}.yaml"), {*part} - {"hydra", "defaults"}
        )
        found |= leaves(own)
        for group in groups_of(program) | {"anomalies"}:
            for name, leaf in options(group).items():
                leaf.pop("defaults", None)
                found |= leaves(leaf, "" if (group, name) == ("task", "generate") else group) - {group}
    parts = ("metric.sampler_error.samplers", "metric.sampler_error.schedule")  # of which each is described
    return {next((part for part in parts if field.startswith(part)), field) for field in found}


def test_every_field_is_in_one_class():
    classes = [listed(IMAGES), listed(ROUNDING), {*NOTHING}]
    assert sum(map(len, classes)) == len(set.union(*classes)), "a field is in two classes"
    known = set.union(*classes)
    assert fields() - known == set(), "fields without a class: add each to IMAGES, ROUNDING or NOTHING"
    assert known - fields() == set(), "no option has these fields any more"


PARTS = [
    group for group in groups.group_names(decides_images=True) if group in groups_of("sample") | groups_of("evaluate")
]


@pytest.mark.parametrize("group", [*PARTS, "cond", "schedule"])
def test_every_field_of_a_part_of_the_model_is_in_the_identity(group):
    """Those that say where a file lies are told apart by the hash of its content."""
    for option in options(group):
        config = composed("train", f"{group}={option}") if group != "model" else composed("evaluate", f"model={option}")
        for field in leaves(config[group]) - {""}:
            other = copy.deepcopy(config)
            OmegaConf.update(other, f"{group}.{field}", "another")
            if group == "model":
                assert describe_part(OmegaConf.to_container(other.model)) != describe_part(
                    OmegaConf.to_container(config.model)
                )
                continue
            one, two = (describe_groups(image_settings(each, {})) for each in (config, other))
            if f"{group}.{field}" not in NOTHING:
                assert (one == two) == (field in groups.places(group)), f"{group}={option} {group}.{field}"


def another(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 1.0 if value == float("inf") else value + 1
    return {"fresh": "fixed", None: 4}.get(value) if not OmegaConf.is_list(value) else [9, 5, 2]


@pytest.mark.parametrize("option", options("sampler"))
def test_every_field_of_a_sampler_is_in_its_description(option):
    process = GaussianDiffusion(linear(12, 1e-4, 0.02, rescale=False))

    def described(config):
        sampler = wiring.complete(wiring.instantiate(config.sampler, "sampler"), "sampler", process=process)
        return sampler.describe(), sampler.steps

    words = [f"{group}={name}" for group in ("variance", "timestep_spacing") for name in options(group)]
    for word in words:
        config = copy.deepcopy(composed("train", f"sampler={option}", word, "sampler.steps=3"))
        group = word.partition("=")[0]
        if group not in config.sampler:
            continue
        before = described(config)
        changed = {f"sampler.{field}" for field in leaves(config.sampler) if "." not in field} - {
            f"sampler.{each}" for each in ("variance", "timestep_spacing")
        }
        changed |= {f"{group}.{field}" for field in leaves(config[group]) - {""}}
        for field in changed:
            other = copy.deepcopy(config)
            value = [1, 2] if field.endswith("sections") else another(OmegaConf.select(config, field))
            OmegaConf.update(other, field, value)
            assert described(other) != before, f"{word} sampler={option} {field}"


BALLS = {"open": "closed", "closed": "open"}
MEASURED_HERE = ("anomaly", "nll", "nll_ode", "rate_distortion", "restoration", "reconstruction", "sampler_error")


@pytest.mark.parametrize("option", sorted({*options("metric")} - {*MEASURED_HERE, "all"}))
def test_every_field_of_a_score_is_in_the_protocol_or_on_the_list(option):
    for name, part in composed("evaluate", f"metric={option}").metric.items():
        for field in leaves(part):
            if not field:
                continue
            other = copy.deepcopy(part)
            value = OmegaConf.select(part, field)
            OmegaConf.update(
                other,
                field,
                BALLS.get(value, "another")
                if isinstance(value, str)
                else value / 2
                if isinstance(value, float)
                else value + 1,
            )
            one, two = (wiring.instantiate(each, "metric") for each in (part, other))
            same = (one.describe(), getattr(one, "name", "")) == (two.describe(), getattr(two, "name", ""))
            assert same == (f"metric.{name}.{field}" in NOTHING), f"metric={option} metric.{name}.{field}"


SMALLEST = {
    "nll": ("num_images=3",),
    "rate_distortion": ("num_images=3",),
    "nll_ode": ("num_images=3", "steps=3"),
    "restoration": ("num_images=3", "num_shown=2", "split=train", "t=3", "features=null"),
    "anomaly": ("num_images=12", "num_shown=3", "num_bootstrap=5"),
}
CHANGES = {
    "nll": ("num_images=4", "split=val", "floor=0.01"),
    "rate_distortion": ("num_images=4", "split=val", "variance=small"),
    "nll_ode": ("num_images=4", "split=val", "steps=4", "num_probes=2"),
    "restoration": ("num_images=4", "split=val", "t=2"),
    "anomaly": (
        *("average=maps", "image_score=max", "num_bootstrap=6", "num_images=13", "repeats=2", "seed=1"),
        *("threshold=0.1", "times=[1,2]", "frequencies=[2]"),
    ),
}
OF_MODEL = ("clip=none", "clip=dynamic", "schedule=sigmoid", "schedule.max_beta=0.9", "weights=raw", "seed=1")
OF_NOISE = ("noise=gaussian", "noise=offset", "noise.octaves=2", "process.reverse_noise=white")
TRAINED = {
    "anomaly": ("data=mnist", "data.num_train=64", "data.num_val=40", "noise=simplex", "noise.frequency=4"),
}


@pytest.mark.parametrize("metric", CHANGES)
def test_results_of_a_model_share_a_name_only_if_they_share_their_values(config, run_of, tmp_path, metric):
    trained = TRAINED.get(metric, ("data.num_val=40",))
    ckpt = run_of("schedule.num_timesteps=6", *trained) / "checkpoints" / "last.ckpt"
    names = {}

    def measure(*words):
        out = tmp_path / str(len(names))
        smallest = [f"metric.{metric}.{each}" for each in SMALLEST[metric]]
        typed = ("trainer=cpu", f"ckpt={ckpt}", f"metric={metric}", f"out={out}", *smallest, *words)
        evaluate.run_evaluate(config("evaluate", *expand_short_forms(list(typed), ROOT / "conf", "evaluate")))
        (path,) = out.glob("*.json")
        names[words] = path.name
        return path.name, dict(read_result(path).metrics)

    base = measure()
    rounding = {
        field for field in listed(ROUNDING) if field.startswith(f"metric.{metric}.") and "features" not in field
    }
    for field in sorted(rounding):
        name, values = measure(f"{field}=2")
        assert name == base[0]
        assert values == pytest.approx(base[1], rel=1e-4, abs=1e-6)
    if f"metric.{metric}.num_shown" in NOTHING:
        assert measure(f"metric.{metric}.num_shown=1") == base
    own = {f"metric.{metric}.{each}" for each in CHANGES[metric]}
    assert {each.partition("=")[0] for each in own} | {"metric.anomaly.split"} & listed(
        {f"metric.{metric}": "split"}
    ) == {field for field in listed(IMAGES) if field.startswith(f"metric.{metric}.") and "features" not in field}
    seen = {base[0]}
    for word in (*sorted(own), *OF_MODEL, *(OF_NOISE if metric in TRAINED else ())):
        name, values = measure(word)
        assert name not in seen, f"{word} has the name of another result"
        seen.add(name)

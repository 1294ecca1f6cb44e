"""Set up the guidance of a model: the order of its wrappers, and the other models that it uses."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ddpm.base import check
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.config.checkpoint_path import checkpoint_path
from ddpm.config.codec import Load
from ddpm.config.wiring import complete, instantiate
from ddpm.diffusion.conditions.base import ClassLabel, Condition, NoCondition
from ddpm.diffusion.denoiser import Denoiser, NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.samplers.base import Sampler
from ddpm.model.codec import Codec
from ddpm.model.diffusion_model import DiffusionModel, no_samples

READ_HERE = ("order", "weights", "guide", "classifier")
"""Fields of a guidance that are used here and not passed to its constructor."""


class GuidanceSetup(NamedTuple):
    """wrap: adds guidance and clipping to a denoiser. sample_condition: of samples. networks: the other networks."""

    wrap: Callable[[Denoiser], Denoiser]
    sample_condition: Condition
    networks: tuple[nn.Module, ...] = ()


def set_up_guidance(
    config: DictConfig, condition: Condition, sampler: Sampler, codec: Codec, load: Load, objective: Objective
) -> GuidanceSetup:
    """condition, objective: of the network. load: loads a model from the checkpoint that the guidance names."""
    leaf = config.guidance
    factory = instantiate(OmegaConf.masked_copy(leaf, [name for name in leaf if name not in READ_HERE]), "guidance")
    if leaf._target_ != UNGUIDED["_target_"] and not isinstance(sampler.process, GaussianDiffusion):
        name = type(sampler.process).__name__
        raise ValueError(f"guidance needs process=gaussian, but this model has {name}; leave guidance out")
    given: dict[str, Any] = {
        "condition": condition,
        "process": sampler.process,
        "objective": objective,
        "uses_guidance_gradient": sampler.uses_guidance_gradient,
    }
    sample_condition, networks = condition, []
    if "guide" in leaf:
        guide = guide_model("guide", leaf, sampler, codec, load)
        if guide.condition.network_settings != condition.network_settings:
            raise ValueError(f"guidance.guide={leaf.guide} has {guide.condition}, but this model has {condition}")
        networks.append(guide.weights(guide.predict_weights))
        given["guide"] = NetworkDenoiser(networks[0], guide.objective)
    if "classifier" in leaf:
        classifier = guide_model("classifier", leaf, sampler, codec, load)
        networks.append(classifier.weights(classifier.predict_weights))
        given["classifier"] = partial(NetworkDenoiser(networks[0], classifier.objective).raw, cond={})
        sample_condition = shared_condition(classifier.condition, condition, leaf.classifier)
        given["denoiser_takes_label"] = not isinstance(condition, NoCondition)
    taken = inspect.signature(get_object(leaf._target_)).parameters
    given = {name: value for name, value in given.items() if name in taken}
    clip = partial(complete, instantiate(config.clip, "clip"), "clip")
    if "guide" in given and leaf.order[0] == "clip":
        given["guide"] = clip(denoiser=given["guide"])
    guidance = partial(complete, partial(factory, **given), "guidance")
    inner, outer = order_wrappers(leaf.order, {"guidance": guidance, "clip": clip})
    return GuidanceSetup(partial(apply_wrappers, inner, outer), sample_condition, tuple(networks))


def unguided(model: DiffusionModel) -> DiffusionModel:
    """A model of the same networks that samples without guidance."""
    config = OmegaConf.create({"guidance": UNGUIDED, "clip": model.config["clip"]})
    setup = set_up_guidance(config, model.condition, model.sampler, model.codec, refuse_load, model.objective)
    return model.with_guidance(setup.wrap, setup.sample_condition)


def refuse_load(path: str, **_: Any) -> DiffusionModel:
    raise AssertionError(f"without guidance no other model is loaded, but {path} was asked for")


def apply_wrappers(inner: Callable[..., Denoiser], outer: Callable[..., Denoiser], denoiser: Denoiser) -> Denoiser:
    return outer(denoiser=inner(denoiser=denoiser))


def order_wrappers(order: Any, wrappers: dict[str, Callable[..., Denoiser]]) -> list[Callable[..., Denoiser]]:
    if not OmegaConf.is_list(order) or sorted(map(str, order)) != sorted(wrappers):
        check.fail("guidance.order", order, "[guidance, clip] or [clip, guidance], innermost first")
    return [wrappers[name] for name in order]


def guide_model(field: str, leaf: DictConfig, sampler: Sampler, codec: Codec, load: Load) -> DiffusionModel:
    """Load the guide or classifier. ValueError if its kind, process, schedule or codec does not match the model."""
    path = leaf[field]
    if path is None:
        raise ValueError(f"guidance.{field} must be given, for example guidance.{field}=runs/.../last.ckpt")
    model = load(checkpoint_path(str(path), f"guidance.{field}"), field=f"guidance.{field}")
    wants_classes = field == "classifier"
    if wants_classes and not getattr(model.best_network, "classifies", False):
        remedy = "train one with experiment=classifier_mnist, or with loss=classification"
        raise ValueError(f"guidance.classifier={path} is not a classifier; {remedy}")
    if no_samples(model.best_network) and not wants_classes:
        raise ValueError(f"guidance.{field}={path} is {no_samples(model.best_network)}")
    complete(model.use_for_prediction, "guidance", weights=leaf.get("weights", "best"), seed=0)
    ours, theirs = (each.process.schedule.alpha_bar for each in (sampler, model.sampler))
    if type(model.sampler.process) is not type(sampler.process) or not torch.equal(ours, theirs):
        raise ValueError(
            f"guidance.{field}={path} was trained with another schedule than this model, so its times "
            "have other noise levels; train it with the same schedule"
        )
    if not codec.shares_x0(model.codec):
        found, needed = type(model.codec).__name__, type(codec).__name__
        different = f"codec {found}, but this model has {needed}" if found != needed else "another first stage or scale"
        raise ValueError(
            f"guidance.{field}={path} has {different}: the guided model and its guide need the same codec, with the "
            "same first stage, scale and shift"
        )
    return model


def shared_condition(of_classifier: Condition, condition: Condition, path: str) -> Condition:
    """The condition of samples: for an unconditional model, the classes of the classifier."""
    if isinstance(condition, NoCondition):
        return of_classifier
    if condition.network_settings != of_classifier.network_settings:
        raise ValueError(f"guidance.classifier={path} has {of_classifier}, but this model has {condition}")
    assert isinstance(condition, ClassLabel)
    return condition

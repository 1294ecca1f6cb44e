"""Denoising diffusion models: train, sample, evaluate and compare them.

`ddpm.load("latest").sample(16)` returns 16 images of the newest model; see docs/python.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm.commands.python import load as load
    from ddpm.model.diffusion_model import DiffusionModel as DiffusionModel

__version__ = "0.1.0"
__all__ = ["DiffusionModel", "load"]


def __getattr__(name: str) -> Any:
    """Import torch on first use, so that `import ddpm` is fast."""
    if name == "load":
        from ddpm.commands.python import load

        return load
    if name == "DiffusionModel":
        from ddpm.model.diffusion_model import DiffusionModel

        return DiffusionModel
    raise AttributeError(f"module 'ddpm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

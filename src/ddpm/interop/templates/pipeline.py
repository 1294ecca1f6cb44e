"""Images of given classes from a UNet2DModel, with classifier-free guidance (Ho and Salimans 2022) at a range of noise
levels (Kynkaanniemi et al. 2024).

pipeline = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
images = pipeline([0, 1, 2], num_inference_steps=20).images
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class ClassConditionalPipeline(DiffusionPipeline):
    """null_class: the label of no class; None if the model was always given a class. guidance_scale: 1 is no guidance.
    guidance_interval: the noise levels sigma / alpha at which there is guidance; None: all."""

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        null_class: int | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        guidance = {"guidance_scale": guidance_scale, "guidance_interval": guidance_interval}
        self.register_to_config(null_class=null_class, **guidance)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int],
        num_inference_steps: int = 1000,
        guidance_scale: float | None = None,
        generator: Any = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """An image for each label: PIL images, or with output_type="np" an array `[B, H, W, C]` in [0, 1].

        class_labels: from 0, and `null_class` for no class. guidance_scale: None is that of the folder. Raises
        ValueError for another scale than 1 if the model was always given a class.
        """
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if scale != 1 and self.config.null_class is None:
            raise ValueError(f"guidance_scale must be 1 for a model that was always given a class, got {scale}")
        labels = torch.tensor(list(class_labels), device=self._execution_device)
        size = self.unet.config.sample_size
        shape = (len(labels), self.unet.config.in_channels, *([size, size] if isinstance(size, int) else size))
        x = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.progress_bar(self.scheduler.timesteps):
            x = self.scheduler.step(self.predict(x, t, labels, scale), t, x, generator=generator).prev_sample
        images = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(images) if output_type == "pil" else images)

    def predict(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
        """The output of the network for x `[B, C, H, W]` and labels, int64 `[B]`: guided in its first C. Others
        are those of the variance."""
        low, high = self.config.guidance_interval or (0, math.inf)
        alpha_bar = float(self.scheduler.alphas_cumprod[t])
        noise_level = math.sqrt((1 - alpha_bar) / alpha_bar) if alpha_bar else math.inf
        if scale == 1 or not low <= noise_level <= high:
            return self.unet(x, t, labels).sample
        both = torch.cat([labels, torch.full_like(labels, self.config.null_class)])
        given, null = self.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        guided = torch.lerp(null, given, scale)
        return torch.cat([guided[:, : x.shape[1]], given[:, x.shape[1] :]], dim=1)

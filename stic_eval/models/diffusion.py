"""Noise on the pixel tensor: what a model sees of an image after so many steps of forward diffusion.

Source: Ho et al. 2020 (x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e), with the schedule of Leng et al. 2023
(VCD, arXiv 2311.16922), which SeVa and others took over: 1,000 steps, their betas a sigmoid's values at
equal distances from -6 to 6, between 1e-5 and 0.005. The noise goes onto what the processor has made,
resized and normalised, not onto the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stic_eval.types import ImageRef

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 1000


def add_noise(inputs: Mapping[str, Any], images: Sequence[ImageRef]) -> dict[str, Any]:
    """What a processor has made of one request's images, with their noise.

    Args:
        inputs: By name. Noise goes onto tensors of floating-point numbers, whatever their shape (pixels,
            crops, patches); sizes and places are whole numbers.

    Raises:
        ValueError: One of several images has noise: which values are its own is not known.
    """
    import torch

    found = dict(inputs)
    if all(image.diffusion is None for image in images):
        return found
    if len(images) > 1:
        raise ValueError("noise is put onto a request's only image, and this one has several")
    step, seed = images[0].diffusion or (0, 0)
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(found):
        value = found[name]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator).to(value)
            found[name] = diffuse_pixels(value, noise, step)
    return found


def diffuse_pixels(clean: Tensor, noise: Tensor, step: int) -> Tensor:
    """x_t of x_0 and noise, all of one shape; `step` counts from 0 to 999."""
    import torch

    betas = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (0.005 - 1e-5) + 1e-5
    kept = float((1 - betas).cumprod(0)[step])  # of the image's variance
    x_t: Tensor = clean * kept**0.5 + noise * (1 - kept) ** 0.5
    return x_t

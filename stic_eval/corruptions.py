"""Images spoilt on purpose: STIC's `h` (low resolution, colour jitter) and the others of its ablation.

Only Pillow and NumPy. Callers import `corrupt` and `diffuse` from `stic_eval.images`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from stic_eval.contracts.corruption import Corruption
from stic_eval.plugin_code import foreign
from stic_eval.store import content_key
from stic_eval.types import ImageRef

# The variances of the forward diffusion process: linear, 1,000 steps (Ho et al., 2020, section 4).
_BETAS = np.linspace(1e-4, 0.02, 1000)


def corrupt(ref: ImageRef, kind: str | Corruption, seed: int = 0, **params: float) -> ImageRef:
    """The same image, spoilt. Lazy: pixels are touched when the result is loaded.

    The kinds of `CORRUPTIONS`, and their parameters:
        low_res: Down-scaled (bicubic) until the shorter side has `short_side` px, never up-scaled;
            `restore_size` scales back up to the original size.
        jitter: Brightness factor from [1 - brightness, 1 + brightness] and hue shift from
            [-hue, hue] of the colour circle, in random order, as torchvision's `ColorJitter`.
        blur: Gaussian, `radius` as a share of the shorter side.
        noise: Gaussian noise on every value, `std` as a share of the value range.
        diffusion: Diffusion noise up to `step` (1 to 1000): sqrt(a) x + sqrt(1 - a) noise, with x in
            [-1, 1], standard normal noise, and a the product of 1 - beta over the first `step` steps,
            beta linear from 1e-4 to 0.02 over 1,000 steps (Ho et al., 2020, arXiv 2006.11239, eq. 4).
        blank: A plain grey of `level` (0 to 255).
        crop: A random window with `fraction` of each side.

    Args:
        kind: One of `CORRUPTIONS` by name, or a corruption, such as a plug-in's.
        seed: Seeds the random kinds, together with the image's hash.
        **params: Override the kind's defaults.

    Returns:
        A reference whose hash is a hash of the source hash, the kind, all its parameters, for the random
        kinds the seed, and for a plug-in's the content of its file.

    Raises:
        ValueError: Unknown kind or parameter.
    """
    if isinstance(kind, str) and kind not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {kind!r}: one of {', '.join(CORRUPTIONS)}")
    how = CORRUPTIONS[kind] if isinstance(kind, str) else kind
    unknown = sorted(set(params) - set(how.defaults))
    if unknown:
        raise ValueError(f"corruption {how.name} has no parameter {', '.join(unknown)}")
    settings = {**how.defaults, **params}
    key = content_key([ref.sha256, how.name, settings, seed if how.random else 0, *foreign(how.spoil)])

    def load() -> Image.Image:
        draw = np.random.default_rng(int(key[:32], 16))
        spoilt: Image.Image = how.spoil(ref.load(), draw, settings)
        return spoilt.convert("RGB")

    return ImageRef(key, f"{ref.source}#{how.name}", load)


def diffuse(ref: ImageRef, step: int, seed: int) -> ImageRef:
    """The same image with diffusion noise on what a model's processor will have made of it.

    Other than `corrupt` with `diffusion`, which spoils the picture: `stic_eval.models.diffusion` has the
    formula. The pixels that the reference loads are the clean ones.

    Args:
        step: How far the process has gone, from 0 to 999.
    """
    key = content_key([ref.sha256, "pixel_diffusion", step, seed])
    return replace(ref, sha256=key, source=f"{ref.source}#diffused", diffusion=(step, seed))


_Settings = Mapping[str, Any]


def _low_res(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    scale = settings["short_side"] / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC) if settings["restore_size"] else small


def _jitter(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    brightness = draw.uniform(max(0.0, 1 - settings["brightness"]), 1 + settings["brightness"])
    hue = draw.uniform(-settings["hue"], settings["hue"])
    steps: list[Callable[[Image.Image], Image.Image]] = [
        lambda picture: ImageEnhance.Brightness(picture).enhance(brightness),
        lambda picture: _shift_hue(picture, hue),
    ]
    for index in draw.permutation(2):
        image = steps[index](image)
    return image


def _shift_hue(image: Image.Image, shift: float) -> Image.Image:
    """Turns the hue by `shift` of the circle, in 8-bit HSV as torchvision does."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(shift * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def _blur(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(settings["radius"] * min(image.size)))


def _noise(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)
    noisy = values + draw.standard_normal(values.shape, dtype=np.float32) * (255 * settings["std"])
    return Image.fromarray(np.round(noisy).clip(0, 255).astype(np.uint8))


def _diffusion(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    kept = np.prod(1 - _BETAS[: int(settings["step"])])
    values = np.asarray(image, dtype=np.float32) / 127.5 - 1
    noise = draw.standard_normal(values.shape, dtype=np.float32)
    noisy = np.sqrt(kept) * values + np.sqrt(1 - kept) * noise
    return Image.fromarray(np.round((noisy + 1) * 127.5).clip(0, 255).astype(np.uint8))


def _blank(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    return Image.new("RGB", image.size, (int(settings["level"]),) * 3)


def _crop(image: Image.Image, draw: np.random.Generator, settings: _Settings) -> Image.Image:
    width, height = (max(1, round(side * settings["fraction"])) for side in image.size)
    left = int(draw.integers(0, image.width - width + 1))
    top = int(draw.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


# Entry points of this package, as a plug-in's is one of its own. low_res and jitter are the paper's.
low_res = Corruption("low_res", _low_res, {"short_side": 20, "restore_size": False}, random=False)
jitter = Corruption("jitter", _jitter, {"brightness": 0.5, "hue": 0.3})
blur = Corruption("blur", _blur, {"radius": 0.05}, random=False)
noise = Corruption("noise", _noise, {"std": 0.4})
diffusion = Corruption("diffusion", _diffusion, {"step": 500})
blank = Corruption("blank", _blank, {"level": 128}, random=False)
crop = Corruption("crop", _crop, {"fraction": 0.4})
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {one.name: one for one in (low_res, jitter, blur, noise, diffusion, blank, crop)}
)

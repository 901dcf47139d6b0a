"""
Draw one 8×8 digit as the kind of picture that a camera or a drawing program makes.

The source images are tiny grey maps of how much ink fell on each cell. Served
pictures are not: they have any size, any two colours (dark on light or light
on dark), a tilt, uneven light, and noise. One renderer makes both the pictures
that the network learns from and the held-out ones that it is measured on, so
the two differ in the digits, never in the style.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

MARGIN_CELLS = 2
"""Empty cells around the 8×8 map, so that a stroke at its edge fades instead of being cut."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601, as Pillow's and the model's own greyscale."""


@dataclass(frozen=True, slots=True)
class Style:
    """The limits between which a picture is drawn; every draw is uniform unless said otherwise."""

    side_px: tuple[int, int] = (24, 160)
    """Shorter side, drawn evenly on a logarithmic scale."""
    aspect: float = 1.25
    """Longest side over shortest, at most."""
    fill: tuple[float, float] = (0.6, 1.0)
    """The digit's height as a share of the shorter side."""
    tilt_deg: float = 16.0
    shear: float = 0.2
    sharpness: tuple[float, float] = (1.0, 5.0)
    """Slope of the edge between ink and paper: 1 keeps the blur of the source."""
    contrast: tuple[float, float] = (45.0, 200.0)
    """Difference in luma between ink and paper, 0–255."""
    light: float = 0.25
    """Strength of the gradient across the picture, as a share of the contrast."""
    noise: float = 0.3
    """Largest standard deviation of the noise, as a share of the contrast."""


def render_digit(
    ink_map: npt.NDArray[np.float32], style: Style, rng: np.random.Generator
) -> Image.Image:
    """
    Draw one digit.

    Args:
        ink_map: [8, 8], 0 (paper) to 16 (ink), as scikit-learn's digits are.
        style: Between which limits to draw.
        rng: The only source of randomness: the same state draws the same picture.

    Returns:
        An RGB picture, its shorter side within style.side_px.
    """
    width_px, height_px = _draw_size(style, rng)
    coverage = _draw_coverage(ink_map, width_px, height_px, style, rng)
    contrast = rng.uniform(*style.contrast)
    ink, paper = _draw_colours(contrast, rng)
    pixels = paper + coverage[:, :, None] * (ink - paper)
    pixels += contrast * style.light * _draw_gradient(width_px, height_px, rng)[:, :, None]
    # Half the noise is grain common to the channels, half is colour noise.
    deviation = contrast * rng.uniform(0.0, style.noise) / math.sqrt(2.0)
    pixels += rng.normal(0.0, deviation, (height_px, width_px, 1))
    pixels += rng.normal(0.0, deviation, (height_px, width_px, 3))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def _draw_size(style: Style, rng: np.random.Generator) -> tuple[int, int]:
    low, high = (math.log(side) for side in style.side_px)
    side = math.exp(rng.uniform(low, high))
    stretch = rng.uniform(1.0, style.aspect)
    longer = min(round(side * stretch), style.side_px[1])
    shorter = round(side)
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def _draw_coverage(
    ink_map: npt.NDArray[np.float32],
    width_px: int,
    height_px: int,
    style: Style,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """The share of ink at each pixel, [height, width], 0–1: enlarged, tilted, moved, sharpened."""
    padded = np.pad(ink_map.astype(np.float32) / 16.0, MARGIN_CELLS)
    centre = padded.shape[0] / 2
    side = min(width_px, height_px)
    fill = rng.uniform(*style.fill)
    cells_per_px = 8.0 / (fill * side)
    tilt = math.radians(rng.uniform(-style.tilt_deg, style.tilt_deg))
    shear = rng.uniform(-style.shear, style.shear)
    cos, sin = math.cos(tilt) * cells_per_px, math.sin(tilt) * cells_per_px
    slack = side * (1.0 - fill) / 2
    middle_x = width_px / 2 + rng.uniform(-slack, slack)
    middle_y = height_px / 2 + rng.uniform(-slack, slack)
    # Pillow asks for the map from a target pixel back to its place in the source.
    a, b = cos + shear * sin, -sin + shear * cos
    d, e = sin, cos
    to_source = (
        a,
        b,
        centre - a * middle_x - b * middle_y,
        d,
        e,
        centre - d * middle_x - e * middle_y,
    )
    enlarged = Image.fromarray(padded, "F").transform(
        (width_px, height_px), Image.Transform.AFFINE, to_source, Image.Resampling.BICUBIC
    )
    slope = rng.uniform(*style.sharpness)
    threshold = rng.uniform(0.35, 0.55) if slope > 1.5 else 0.5
    return np.clip((np.asarray(enlarged, dtype=np.float64) - threshold) * slope + 0.5, 0.0, 1.0)


def _draw_colours(
    contrast: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Two RGB colours whose luma differs by the contrast (0–255); either may be the darker one."""
    dark_luma = rng.uniform(0.0, 255.0 - contrast)
    dark, light = (_draw_colour(luma, rng) for luma in (dark_luma, dark_luma + contrast))
    return (dark, light) if rng.random() < 0.5 else (light, dark)


def _draw_colour(luma: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Give a random tint the asked luma, desaturating it as far as it must be to stay in range."""
    tint = rng.uniform(-255.0, 255.0, 3)
    tint -= tint @ LUMA
    room = np.where(tint > 0, 255.0 - luma, luma) / np.maximum(np.abs(tint), 1e-9)
    colour: npt.NDArray[np.float64] = luma + tint * min(1.0, float(room.min()))
    return colour


def _draw_gradient(
    width_px: int, height_px: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Light that falls from one side, [height, width], between -1 and 1."""
    angle = rng.uniform(0.0, 2 * math.pi)
    x = np.linspace(-1.0, 1.0, width_px)[None, :]
    y = np.linspace(-1.0, 1.0, height_px)[:, None]
    gradient: npt.NDArray[np.float64] = (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2)
    return gradient * rng.uniform(0.0, 1.0)

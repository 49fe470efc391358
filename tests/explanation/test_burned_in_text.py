from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, maximum_filter

from medllm.explanation.burned_in_text import find_text
from medllm.phantom import make_phantom

# Drawn for these tests alone; the thresholds were set on other seeds.
SEEDS = range(960_000, 960_020)


def written(
    pixels: np.ndarray, text: str, at: tuple[float, float], height: float, value: float
) -> tuple[np.ndarray, np.ndarray]:
    """Write on a copy, in shares of the image's side; give it and where the strokes are."""
    side = max(pixels.shape)
    canvas = Image.new("L", pixels.shape[::-1])
    font = ImageFont.load_default(round(height * side / 0.7))  # a capital is 0.7 of the size
    ImageDraw.Draw(canvas).text((at[0] * side, at[1] * side), text, fill=255, font=font)
    ink = np.asarray(canvas, dtype=np.float32) / 255
    return (pixels * (1 - ink) + value * ink).astype(np.float32), ink > 0.5


def slope(rows: int, columns: int) -> np.ndarray:
    """A dark corner that brightens towards the other."""
    return np.add.outer(np.linspace(0, 0.5, rows), np.linspace(0, 0.5, columns)).astype(np.float32)


@pytest.mark.parametrize("size", [256, 512])
def test_markers_of_phantoms_are_found_and_hardly_anything_else(size):
    found, alarms, n_marked = 0, 0, 0
    for seed in SEEDS:
        phantom = make_phantom(seed, size=size)
        text = find_text(phantom.pixels)
        marker = phantom.marker_mask
        n_marked += marker.any()
        found += marker.any() and text[marker].mean() > 0.5
        alarms += bool((text & ~maximum_filter(marker, 2 * (size // 25) + 1)).any())
    assert 10 <= n_marked < len(SEEDS)
    assert found >= 0.8 * n_marked  # nine tenths of many; those on bright shoulders are missed
    assert alarms <= 1  # an electrode on a wire or so


@pytest.mark.parametrize("shape", [(200, 260), (900, 700)])
@pytest.mark.parametrize("text", ["L", "R", "PORTABLE", "AP 14:05"])
def test_planted_letters_are_found_where_they_are(shape, text):
    pixels, ink = written(slope(*shape), text, (0.05, 0.1), 0.035, 1.0)
    found = find_text(pixels)
    assert found.shape == shape
    assert found[ink].mean() > 0.8
    # A letter's rectangle and its rim, and no more.
    assert not (found & ~binary_dilation(ink, iterations=round(0.04 * max(shape)))).any()


@pytest.mark.parametrize("text", ["L", "PORTABLE"])
def test_letters_are_found_in_an_image_shown_inverted(text):
    pixels, ink = written(slope(512, 512), text, (0.05, 0.1), 0.035, 1.0)
    found = find_text(1 - pixels)
    assert found[ink].mean() > 0.8
    assert found.mean() < 0.05


def test_the_window_moves_no_finding():
    pixels, _ = written(slope(400, 400), "R 12", (0.05, 0.1), 0.04, 1.0)
    wide = (0.3 + 0.3 * pixels).astype(np.float32)
    # rounding of single precision may move a threshold's pixel
    assert (find_text(wide) == find_text(pixels)).mean() > 0.999


def test_without_letters_nothing_is_found():
    blank = slope(300, 300)
    assert not find_text(blank).any()
    assert not find_text(np.zeros((40, 30), dtype=np.float32)).any()
    canvas = Image.fromarray((blank * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    draw.line((10, 20, 250, 60), fill=255, width=2)  # a wire
    draw.line((200, 10, 210, 34), fill=255, width=2)  # a piece of one
    draw.ellipse((40, 100, 48, 108), fill=255)  # an electrode
    draw.rectangle((150, 100, 220, 180), fill=255)  # a plate
    assert not find_text(np.asarray(canvas, dtype=np.float32) / 255).any()


def test_most_radiographs_of_children_show_their_letter_and_few_anything_else(data_root):
    files = sorted((data_root / "kermany" / "normal").glob("*.jpg"))[:12]
    texts = [
        find_text(np.asarray(Image.open(file).convert("L"), np.float32) / 255) for file in files
    ]
    assert sum(text.any() for text in texts) >= 10
    assert max(text.mean() for text in texts) < 0.02

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medllm import Lesion, make_phantom
from medllm.data import Preprocessing
from medllm.data.anatomy import regions_of
from medllm.evaluate.audits.hiding import LUNGS_HIDDEN, THORAX_HIDDEN, hide

STRETCHED = Preprocessing(size=128)
OPACITY = Lesion("lung_opacity", "left", "middle", strength=0.4)


def _hidden(pixels, preprocessing=STRETCHED):
    display = preprocessing.resize(pixels)[0]
    return display, hide(display, pixels.shape, preprocessing)


def _flat(copy):
    """Where a copy is flat in one shade."""
    shades, counts = copy.unique(return_counts=True)
    return copy == shades[counts.argmax()], shades[counts.argmax()]


@pytest.mark.parametrize("seed", [3, 11, 19])
def test_the_lungs_are_filled_with_the_mean_of_all_that_is_left(seed):
    phantom = make_phantom(seed, size=128)
    display, copies = _hidden(phantom.pixels)
    lungs = torch.from_numpy(phantom.right_lung_mask | phantom.left_lung_mask)
    thorax = lungs | torch.from_numpy(phantom.heart_mask)
    for name, inside in ((LUNGS_HIDDEN, lungs), (THORAX_HIDDEN, thorax)):
        flat, shade = _flat(copies[name])
        assert torch.equal(copies[name][~flat], display[~flat])
        assert shade == pytest.approx(float(display[~flat].mean()), abs=1e-5)
        # The outline is a standard one, fitted to the image.
        assert flat[inside].float().mean() > 0.95
    heart, _ = _flat(copies[LUNGS_HIDDEN])
    assert heart[torch.from_numpy(phantom.heart_mask)].float().mean() < 0.5


@pytest.mark.parametrize("name", [LUNGS_HIDDEN, THORAX_HIDDEN])
def test_nothing_of_an_opacity_in_the_lungs_is_left(name):
    with_it = make_phantom(5, size=128, lesions=[OPACITY])
    before, shown = _hidden(with_it.pixels)
    after, blank = _hidden(make_phantom(5, size=128, lesions=[]).pixels)
    opacity = torch.from_numpy(with_it.masks["lung_opacity"])
    # An opacity moves the outline by a pixel or two, and with it the mean of what is left.
    left = (shown[name] - blank[name])[opacity].abs().mean()
    assert left < 0.2 * (before - after)[opacity].mean()


@pytest.mark.parametrize(("rows", "columns"), [(160, 128), (128, 160)])
def test_what_was_padded_is_no_part_of_the_chest(rows, columns):
    picture = Image.fromarray(make_phantom(7, size=160).pixels)
    source = np.array(picture.resize((columns, rows), Image.Resampling.BOX))
    _, copies = _hidden(source, Preprocessing(size=160, aspect="pad"))
    flat, _ = _flat(copies[LUNGS_HIDDEN])
    labels, _ = regions_of(source)
    down = [int((row + 0.5) / rows * len(labels)) for row in range(rows)]
    across = [int((column + 0.5) / columns * len(labels)) for column in range(columns)]
    wanted = np.zeros((160, 160), dtype=bool)
    top, left = (160 - rows) // 2, (160 - columns) // 2
    wanted[top : top + rows, left : left + columns] = labels[np.ix_(down, across)] < 6
    assert np.array_equal(flat.numpy(), wanted)
    assert not flat[: max(top, 1), : max(left, 1)].any()


def test_where_no_lungs_are_found_nothing_is_hidden():
    noise = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    assert _hidden(noise)[1] == {}

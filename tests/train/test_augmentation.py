from __future__ import annotations

import numpy as np
import pytest
import torch

from medllm.data.blur import blurred
from medllm.phantom import make_phantom
from medllm.train.augmentation import MILD, change, draw_changes, hide, move
from medllm.train.recipe import Strength

CPU = torch.device("cpu")
UNCHANGED = Strength(pose=0.0, exposure=0.0, texture=0.0, border=0.0)


def phantoms(count):
    pixels = make_phantom(1, size=64, lesions=()).pixels
    return (torch.from_numpy(pixels) * 255).round().to(torch.uint8)[None].repeat(count, 1, 1)


def draw(count, strength, seed=0):
    return draw_changes(count, torch.Generator().manual_seed(seed), strength)


def test_no_strength_changes_nothing():
    pixels = phantoms(3)
    got = change(pixels, draw(3, UNCHANGED))
    # Bilinear resampling at the pixels' own centres, in float32.
    torch.testing.assert_close(got[:, 0], (pixels.float() / 255).clamp_min(1e-4), atol=1e-5, rtol=0)


def test_exposure_is_changed_and_no_grey_overtakes_another():
    pixels = phantoms(8)
    got = change(pixels, draw(8, Strength(pose=0.0, texture=0.0, border=0.0)))
    order = np.argsort(pixels[0].flatten().numpy(), kind="stable")
    for image in got:
        assert np.diff(image.flatten().numpy()[order]).min() >= -1e-6
    assert (got[0] - got[1]).abs().max() > 0.01


def test_a_share_of_a_batch_is_changed_as_in_the_whole_batch():
    pixels, strong = phantoms(8), draw(8, Strength(border=1.0))
    whole = change(pixels, strong)
    for share in (slice(0, 3), slice(3, 8)):
        part = change(pixels[share], strong.take(share, CPU))
        torch.testing.assert_close(part, whole[share], atol=1e-6, rtol=0)


def test_poses_keep_sides_and_move_maps_with_their_image():
    pixels = torch.zeros(32, 1, 64, 64, dtype=torch.uint8)
    pixels[:, :, 20:44, 4:20] = 255
    poses = draw(32, Strength()).poses
    images = move(pixels, poses)[:, 0]
    assert (images[:, :, :32].mean(dim=(1, 2)) > images[:, :, 32:].mean(dim=(1, 2))).all()
    cells = torch.nn.functional.max_pool2d(pixels.float(), 2).to(torch.uint8)
    maps = move(cells, poses, padding_mode="zeros")[:, 0]
    small = torch.nn.functional.avg_pool2d(images[:, None], 2)[:, 0]
    # The same square at half the resolution; its edges differ by the interpolation.
    assert (maps - small).abs().mean() < 0.02


def test_masked_autoencoding_is_shown_no_noise_and_no_edge():
    changes = draw(64, MILD)
    assert not changes.noise.any()
    assert not changes.coarse.any()
    assert torch.equal(changes.edges, torch.tensor([[-1.0, 1.0, -1.0, 1.0]]).expand(64, 4))


def test_an_edge_is_black_beyond_and_unchanged_within():
    pixels = torch.full((1, 64, 64), 200, dtype=torch.uint8)
    changes = draw(1, UNCHANGED)
    edges = torch.tensor([[-0.5, 0.875, -0.9375, 0.75]])
    cut = type(changes)(**{**vars(changes), "edges": edges})
    got = change(pixels, cut)[0, 0]
    within = torch.zeros(64, 64, dtype=torch.bool)
    within[16:60, 2:56] = True
    assert not got[~within].any()
    assert torch.allclose(got[within], torch.tensor(200 / 255))


def test_hidden_cells_are_those_of_the_blurred_copy():
    pixel_values = phantoms(2)[:, None].float() / 255
    hidden = torch.zeros(2, 7, 7, dtype=torch.bool)
    hidden[0, 0, 6] = True
    got = hide(pixel_values, hidden)
    side = pixel_values.shape[-1]
    seen = torch.arange(side) * 7 // side
    gone = (seen[:, None] == 0) & (seen[None, :] == 6)
    assert torch.equal(got[1], pixel_values[1])
    assert torch.equal(got[0, 0][~gone], pixel_values[0, 0][~gone])
    assert torch.equal(got[0, 0][gone], blurred(pixel_values)[0, 0][gone])


def test_hidden_is_anything_from_little_to_all():
    drawn = draw(4000, Strength(hidden=0.5)).hidden.float().mean(dim=(1, 2))
    assert (drawn == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert (drawn == 1).float().mean() == pytest.approx(0.5 / 6, abs=0.03)
    assert not draw(100, MILD).hidden.any()

"""Where the tokens of tiles lie, counted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from medllm.models.architectures.tiles import layout_of


@pytest.mark.parametrize(
    ("tile", "patch", "side", "cells"),
    [
        pytest.param(336, 14, 24, 24, id="patches that divide a tile"),
        pytest.param(384, 14, 9, 8, id="SmolVLM of 384 pixels, three patches a token, six unread"),
    ],
)
def test_a_token_falls_on_the_cells_whose_pixels_it_reads(tile, patch, side, cells):
    tiles, token = 2, tile // patch // side * patch  # pixels a token
    layout = layout_of(tiles, side, tile=tile, patch=patch)
    cell_of = np.arange(tiles * tile) // (tile // cells)

    def along(first: int, width: int) -> np.ndarray:
        return np.bincount(cell_of[first : first + width], minlength=tiles * cells) / width

    of_tiles = [along(at * tile + token * i, token) for at in range(tiles) for i in range(side)]
    of_whole = [along(tiles * token * i, tiles * token) for i in range(side)]
    wanted = [
        np.outer(of_tiles[row * side + i], of_tiles[column * side + j])
        for row in range(tiles)
        for column in range(tiles)
        for i in range(side)
        for j in range(side)
    ] + [np.outer(one, other) for one in of_whole for other in of_whole]
    assert layout.grid == (tiles * cells, tiles * cells)
    assert layout.n_tokens == len(wanted)
    np.testing.assert_allclose(
        layout.shares, np.reshape(wanted, (len(wanted), -1)), rtol=0, atol=1e-12
    )

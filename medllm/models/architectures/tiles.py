"""A square image cut into tiles, and shown as a whole beside them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from PIL import Image

from medllm.models.architectures.architecture import Layout


def cut(
    pixel_values: Float[torch.Tensor, "batch channels size size"], tile: int
) -> Float[torch.Tensor, "batch tiles channels tile tile"]:
    """Cut images into tiles, row by row.

    Args:
        pixel_values: Images whose side is a multiple of a tile's.
        tile: Rows and columns of a tile.

    Returns:
        The tiles.
    """
    batch, channels, size, _ = pixel_values.shape
    tiles = pixel_values.reshape(batch, channels, size // tile, tile, size // tile, tile)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels, tile, tile)


def shrunk(
    pixel_values: Float[torch.Tensor, "batch channels size size"],
    tile: int,
    resample: Image.Resampling,
) -> Float[torch.Tensor, "batch 1 channels tile tile"]:
    """Bring whole images to the size of a tile, as Pillow does; gradients pass through.

    Args:
        pixel_values: Images.
        tile: Rows and columns of a tile.
        resample: Pillow's filter.

    Returns:
        The small images, as one tile each.
    """
    weights = torch.from_numpy(_filter(pixel_values.shape[-1], tile, resample)).to(pixel_values)
    # An 8-bit image is clipped after each of Pillow's two passes. Its black and white are taken
    # for the image's own: what was padded is black, and a window is spread over both.
    low, high = torch.aminmax(pixel_values.detach().flatten(2), dim=2, keepdim=True)
    low, high = low[..., None], high[..., None]  # (batch, channels, 1, 1)
    narrow = (pixel_values @ weights.T).clamp(low, high)
    return (weights @ narrow).clamp(low, high)[:, None]


@cache
def _filter(size: int, tile: int, resample: Image.Resampling) -> np.ndarray:
    """Weights of a resampling along one side, which Pillow tells of an image of unit vectors."""
    units = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.array(units.resize((size, tile), resample))


def layout_of(
    tiles: int,
    side: int,
    *,
    tile: int,
    patch: int,
    whole_first: bool = False,
    closed: bool = False,
) -> Layout:
    """Lay the tokens of tiles, and of the whole image, on a common grid.

    Args:
        tiles: Tiles along a side.
        side: Tokens along a side of a tile, and of the whole image.
        tile: Rows and columns of a tile.
        patch: Rows and columns of a patch. What whole patches leave of a tile is not read.
        whole_first: Whether the whole image comes before its tiles and not behind.
        closed: Whether the tiles' tokens go row by row over all tiles, each row closed by a token
            that shows nothing; else tile by tile.

    Returns:
        The layout. Its cells are the tokens' own places where patches divide a tile; else as many
        of whole pixels as can be had and are no more than the tokens, and each token falls on those
        that it covers, in proportion.
    """
    cells = next(count for count in range(side, 0, -1) if tile % count == 0)
    full, n_cells, read = tiles * side, tiles * cells, tile // patch * patch
    starts = (np.arange(tiles)[:, None] * tile * side + np.arange(side) * read).ravel()
    size = tile * side // cells
    fine = _on_cells(starts, read, n_cells, size)
    coarse = _on_cells(np.arange(side) * tiles * read, tiles * read, n_cells, size)
    if closed:
        parts = np.concatenate([fine, np.zeros((full, 1, *fine.shape[2:]))], axis=1)
    else:
        parts = fine.reshape(tiles, side, tiles, side, -1).transpose(0, 2, 1, 3, 4)
    order = (coarse, parts) if whole_first else (parts, coarse)
    shares = np.concatenate([part.reshape(-1, n_cells**2) for part in order])
    return Layout((n_cells, n_cells), len(shares), shares)


def _on_cells(
    starts: Int64[np.ndarray, " tokens"], width: int, n_cells: int, size: int
) -> Float64[np.ndarray, "tokens tokens cells cells"]:
    """Share of each token of a square that falls on each cell.

    Counted in pixels over the tokens along a side of a tile, which is whole for each edge.
    """
    edges = np.arange(n_cells) * size
    ends = np.minimum(starts[:, None] + width, edges + size)
    along = (ends - np.maximum(starts[:, None], edges)).clip(min=0) / width
    shares: np.ndarray = np.einsum("ik,jl->ijkl", along, along)
    return shares

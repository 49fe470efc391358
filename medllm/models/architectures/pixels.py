"""Networks whose image tokens are their pixels, cut into patches."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import nn

from medllm.errors import CheckpointError
from medllm.models.architectures.architecture import Architecture, Layout

if TYPE_CHECKING:
    from medllm.models.model import Model

# Patches a side of a map: fewer show no place, and more cost occlusion a forward each.
_FEWEST, _USUAL, _MOST = 4, 14, 24


class PixelTokens(Architecture):
    """A network that is asked nothing behind its image, so that its input is explained itself.

    A patch is a token. Integrated gradients over a ViT's patch embeddings would give the same
    map: an embedding is linear in its patch, so that the paths are the same.
    """

    tokens: ClassVar[Literal["image tokens", "pixels"]] = "pixels"
    reads_questions: ClassVar[bool] = False

    @abstractmethod
    def patch_size(self, network: Any) -> int | None:
        """Say how the network itself cuts its input.

        Args:
            network: The network.

        Returns:
            Pixels a side of its patches; None where it has none.
        """

    def layout(self, network: nn.Module, size: int) -> Layout:
        """Lay patches over the input: the network's own, or about 14 x 14.

        Args:
            network: The network.
            size: Rows and columns of its input in pixels.

        Returns:
            The layout.

        Raises:
            CheckpointError: No grid of 4 to 24 patches a side divides the input.
        """
        side = patches_a_side(size, self.patch_size(network))
        return Layout((side, side), side * side)

    def image_features(
        self, network: nn.Module, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch tokens width"]:
        """Cut images into patches, row by row; a token holds a patch's pixels, channel by channel.

        Nothing is encoded: that is done when the tokens are scored.
        """
        batch, channels, size, _ = pixel_values.shape
        side = self.layout(network, size).grid[0]
        cut = pixel_values.reshape(batch, channels, side, size // side, side, size // side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, side * side, -1)

    def images(
        self, model: Model, features: Float[torch.Tensor, "batch tokens width"]
    ) -> Float[torch.Tensor, "batch channels size size"]:
        """Put patches together again; gradients pass through.

        Args:
            model: The model.
            features: From `image_features`, or between those of two images.

        Returns:
            The network's input.
        """
        contract, (rows, columns) = model.card.preprocessing, model.layout.grid
        height, width = contract.size // rows, contract.size // columns
        cut = features.reshape(len(features), rows, columns, contract.channels, height, width)
        return cut.permute(0, 3, 1, 4, 2, 5).reshape(
            len(features), contract.channels, contract.size, contract.size
        )


def patches_a_side(size: int, own: int | None) -> int:
    """Choose a grid that divides a square.

    Args:
        size: Rows and columns of the square in pixels.
        own: Pixels a side of the network's own patches; None where it has none.

    Returns:
        Patches a side: the network's own where they divide the square and are 4 to 24, else the
        divisor nearest to 14.

    Raises:
        CheckpointError: No divisor is 4 to 24.

    Example:
        >>> patches_a_side(224, 16), patches_a_side(224, 4), patches_a_side(384, 14)
        (14, 14, 16)
    """
    fits = [side for side in range(_FEWEST, _MOST + 1) if size % side == 0]
    if not fits:
        raise CheckpointError(
            f"an input of {size} pixels has no divisor from {_FEWEST} to {_MOST}, so that no grid "
            "of patches fits a map; take preprocessing of another size, such as "
            f"{-(-size // 16) * 16}."
        )
    if own is not None and size % own == 0 and size // own in fits:
        return size // own
    # Of two that are as near, the finer.
    return min(fits, key=lambda side: (abs(side - _USUAL), -side))

"""What medllm must know of a kind of network to score its answers and to explain them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import nn

if TYPE_CHECKING:
    from medllm.models.card import ModelCard, Question
    from medllm.models.model import Model


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the image tokens of a network lie in its square input.

    Attributes:
        grid: Rows and columns of the patches that a map is drawn on.
        n_tokens: Image tokens an image.
        shares: Which part of each token falls on each patch: a row a token, each of sum 1, or 0
            for a token that shows nothing (the end of a row). None where token and patch are the
            same, in row-major order.
    """

    grid: tuple[int, int]
    n_tokens: int
    shares: Float64[np.ndarray, "tokens patches"] | None = None

    def on_grid(
        self, values: Float[torch.Tensor, " tokens"]
    ) -> Float64[np.ndarray, "rows columns"]:
        """Lay a value a token on the patches; the sum of what the tokens show is kept.

        Args:
            values: A value a token.

        Returns:
            A value a patch.
        """
        flat = np.asarray(values.detach().double().cpu().numpy(), dtype=np.float64)
        return (flat if self.shares is None else flat @ self.shares).reshape(self.grid)


class Architecture(ABC):
    """A kind of network: from its input over image tokens to log-odds.

    It has no state: what differs from one checkpoint to another is in the network's configuration
    and in the checkpoint's card.
    """

    tokens: ClassVar[Literal["image tokens", "pixels"]] = "image tokens"
    """What `image_features` gives: `image tokens`, or `pixels` of a network that has none."""

    reads_questions: ClassVar[bool] = True
    """Whether the words of a question reach the network."""

    @abstractmethod
    def layout(self, network: nn.Module, size: int) -> Layout:
        """Say where the image tokens lie.

        Args:
            network: The network.
            size: Rows and columns of its input in pixels.

        Returns:
            The layout.
        """

    @abstractmethod
    def image_features(
        self, network: nn.Module, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch tokens width"]:
        """Encode images; gradients pass through.

        Args:
            network: The network.
            pixel_values: Prepared by the checkpoint's contract.

        Returns:
            Image tokens, as `layout` says.
        """

    @abstractmethod
    def log_odds(
        self,
        model: Model,
        features: Float[torch.Tensor, "batch tokens width"],
        questions: Sequence[Question],
    ) -> Float[torch.Tensor, "batch questions"]:
        """Score image tokens; gradients pass through.

        Args:
            model: The model.
            features: From `image_features`, or between those of two images.
            questions: At least one.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.
        """

    def encoder_tokens(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> tuple[Float[torch.Tensor, "batch tokens encoder_width"], Callable[..., torch.Tensor]]:
        """Give the tokens that Grad-CAM weighs, and the way from there to the image tokens.

        Args:
            network: The network.
            pixel_values: Prepared by the checkpoint's contract.

        Returns:
            The tokens, as `layout` says, and a function of them.
        """
        return self.image_features(network, pixel_values), lambda tokens: tokens

    @abstractmethod
    def prompt(self, card: ModelCard, question: Question) -> str:
        """Write out what is asked.

        Args:
            card: The checkpoint's.
            question: The question.

        Returns:
            The prompt with one placeholder for the whole image; what stands for it in a network
            that is asked otherwise.
        """

    @abstractmethod
    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Divide a network, from the answer down to the pixels.

        Args:
            network: The network.

        Returns:
            Names and modules; between them they have all of its parameters.
        """

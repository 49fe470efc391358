"""Plain classifiers trained by the same recipe, to stand beside the language model's answers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from monai.networks.nets import DenseNet121
from torch import nn
from transformers import ViTModel

from medllm.data import Preprocessing
from medllm.train.closed_questions import layered_groups, location_loss, smoothed
from medllm.train.labelled_images import LabelledImages
from medllm.train.loop import Task
from medllm.train.recipe import Strength


class LinearHead(nn.Module):
    """The encoder with a linear layer on the mean of its tokens, instead of a language model.

    Attributes:
        vision_tower: The encoder.
        head: From the mean of the normalized tokens to log-odds.
        locator: From each token to log-odds of the places, as the language model's has.
    """

    def __init__(self, encoder: ViTModel, n_findings: int) -> None:
        """Put new layers on an encoder.

        Args:
            encoder: Trained in place.
            n_findings: Columns of the output.
        """
        super().__init__()
        self.vision_tower = encoder
        self.head = nn.Linear(encoder.config.hidden_size, n_findings)
        self.locator = nn.Linear(encoder.config.hidden_size, n_findings)

    def tokens(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch patches width"]:
        """Encode images; the normalized patch tokens."""
        hidden: torch.Tensor = self.vision_tower(pixel_values).last_hidden_state[:, 1:]
        return hidden

    def answers(
        self, tokens: Float[torch.Tensor, "batch patches width"]
    ) -> Float[torch.Tensor, "batch findings"]:
        """Give log-odds from the tokens."""
        log_odds: torch.Tensor = self.head(tokens.mean(dim=1))
        return log_odds

    def forward(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch findings"]:
        """Give log-odds."""
        return self.answers(self.tokens(pixel_values))


def densenet_121(channels: int, n_findings: int) -> nn.Module:
    """Make MONAI's DenseNet-121 (Huang et al., CVPR 2017) with random weights."""
    network: nn.Module = DenseNet121(spatial_dims=2, in_channels=channels, out_channels=n_findings)
    return network


class _Classifying(nn.Module):
    """A classifier that gives its loss."""

    def __init__(
        self, network: nn.Module, label_smoothing: float, location: float, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.network = network
        self._label_smoothing, self._location, self._grid = label_smoothing, location, grid

    def forward(self, **batch: torch.Tensor) -> Float[torch.Tensor, ""]:
        """Cross-entropy of the answers, in nats, plus that of the places for a `LinearHead`."""
        target = smoothed(batch["labels"], self._label_smoothing)
        pixel_values, network = batch["pixel_values"], self.network
        if not isinstance(network, LinearHead):
            return self._answers(network(pixel_values), target, batch)
        tokens = network.tokens(pixel_values)
        places = location_loss(
            network.locator(tokens),
            batch["regions"],
            batch["regions_known"],
            batch["hidden"],
            self._grid,
        )
        answers = self._answers(network.answers(tokens), target, batch)
        return answers + self._location * places

    @staticmethod
    def _answers(
        logits: Float[torch.Tensor, "batch findings"],
        target: Float[torch.Tensor, "batch findings"],
        batch: dict[str, torch.Tensor],
    ) -> Float[torch.Tensor, ""]:
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (cost * batch["weights"] * ~batch["labels"].isnan()).sum() / len(logits)


class Classification(Task):
    """Tell findings by a plain classifier, on the images and labels of the closed questions.

    Attributes:
        module: The classifier.
    """

    module: _Classifying

    def __init__(
        self,
        network: nn.Module,
        data: LabelledImages,
        preprocessing: Preprocessing,
        grid: tuple[int, int],
        *,
        strength: Strength,
        layer_decay: float,
        label_smoothing: float,
        location: float,
    ) -> None:
        """Prepare the task.

        Args:
            network: From `pixel_values` to log-odds; trained in place.
            data: Training patients alone; its columns are the findings.
            preprocessing: For the normalization.
            grid: Rows and columns of the patches.
            strength: How far images are changed.
            layer_decay: Factor on the rate a layer of an encoder, from its last to its first.
            label_smoothing: Share of the target given to the opposite answer.
            location: Weight of pointing, for a `LinearHead`.
        """
        self._data, self._preprocessing = data, preprocessing
        self._strength, self._layer_decay = strength, layer_decay
        self.module = _Classifying(network, label_smoothing, location / data.known_places, grid)

    def __len__(self) -> int:
        """Count the images, repeats included."""
        return len(self._data.labels)

    def batch(
        self,
        chosen: Int64[torch.Tensor, " batch"],
        generator: torch.Generator,
        share: slice,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Draw changed images with their labels."""
        return self._data.batch(
            chosen, generator, self._strength, self._preprocessing, share, device
        )

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Give each layer of an encoder its own rate, as `ClosedQuestions` does."""
        if not isinstance(self.module.network, LinearHead):
            return super().groups(learning_rate)
        depth = self.module.network.vision_tower.config.num_hidden_layers
        return layered_groups(self.module, depth, learning_rate, self._layer_decay)

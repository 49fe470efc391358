"""Classifiers: a number a label, some labels of which mean a finding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import nn

from medllm.errors import CheckpointError
from medllm.models.architectures.pixels import PixelTokens

if TYPE_CHECKING:
    from medllm.models.card import ModelCard, Question
    from medllm.models.model import Model

# Labels that a prompt names before it counts the rest.
_NAMED = 3


class Classifier(PixelTokens):
    """A network with a logit a label: a question's `yes` and `no` are names of labels.

    Without a `no` the labels are independent of each other, and the logit is the log-odds. With
    it the network chooses one of its labels, and `no` are all that do not mean the finding.
    """

    @abstractmethod
    def labels(self, network: Any) -> tuple[str, ...]:
        """Name the network's outputs.

        Args:
            network: The network.

        Returns:
            A name an output, in order.
        """

    @abstractmethod
    def logits(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch labels"]:
        """Run the network.

        Args:
            network: The network.
            pixel_values: Prepared by the card's contract. Gradients pass through.

        Returns:
            A logit a label.
        """

    def log_odds(
        self,
        model: Model,
        features: Float[torch.Tensor, "batch tokens width"],
        questions: Sequence[Question],
    ) -> Float[torch.Tensor, "batch questions"]:
        """Take the logits of the labels that mean a finding, less those of all others.

        With labels of which the network chooses one, it is the log-odds of softmax: logsumexp
        over those that mean the finding minus logsumexp over the rest.

        Args:
            model: The model.
            features: From `image_features`, or between those of two images.
            questions: At least one; `yes` and `no` are names of labels.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.

        Raises:
            CheckpointError: The network has more outputs than labels, or fewer.
        """
        logits = self.logits(model.network, self.images(model, features))
        labels = self.labels(model.network)
        # As where the head of a network in memory was exchanged.
        if logits.shape[1] != len(labels):
            raise CheckpointError(
                f"the network has {logits.shape[1]} outputs and its configuration names "
                f"{len(labels)}; set config.id2label to a name for each."
            )

        def total(names: Sequence[str]) -> torch.Tensor:
            # Two outputs may have one name, as in ImageNet.
            columns = [at for at, label in enumerate(labels) if label in names]
            return logits[:, columns].logsumexp(-1)

        return torch.stack(
            [total(one.yes) - total(one.no) if one.no else total(one.yes) for one in questions],
            dim=1,
        )

    def prompt(self, card: ModelCard, question: Question) -> str:
        """Name the labels."""
        del card
        chosen = f"label {_named(question.yes)}"
        return f"{chosen} against {_named(question.no)}" if question.no else chosen

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Divide the network by its own parts, the last first."""
        return top_parts(network)


class HubClassifier(Classifier):
    """What transformers' `AutoModelForImageClassification` opens."""

    def patch_size(self, network: Any) -> int | None:
        """Take the network's own patches where its configuration has one size of them."""
        config = network.config.to_dict()
        own = config.get("vision_config", config).get("patch_size")
        return own if isinstance(own, int) else None

    def labels(self, network: Any) -> tuple[str, ...]:
        """Read them from the configuration."""
        named = network.config.id2label
        return tuple(str(named[at]) for at in range(network.config.num_labels))

    def logits(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch labels"]:
        """Run the network."""
        logits: torch.Tensor = network(pixel_values=pixel_values).logits
        return logits


def top_parts(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Divide a network that medllm knows nothing of.

    Args:
        network: The network.

    Returns:
        Its parts with parameters, the last first, by their names in it; itself as `network` where
        it has parameters of its own beside.
    """
    if next(network.parameters(recurse=False), None) is not None:
        return [("network", network)]
    parts = [(name, part) for name, part in network.named_children() if [*part.parameters()]]
    return parts[::-1]


def _named(labels: Sequence[str]) -> str:
    if len(labels) > _NAMED:
        return f"{len(labels)} others"
    return " or ".join(f"'{label}'" for label in labels)

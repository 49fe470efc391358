"""Supervised training: closed questions with known answers, and where findings lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import nn

from medllm.models.architectures import Llava
from medllm.models.card import Question
from medllm.models.encoded_questions import EncodedQuestions, encode_questions
from medllm.models.model import Model
from medllm.models.scoring import answer_logits
from medllm.train.labelled_images import LabelledImages
from medllm.train.loop import Task
from medllm.train.questions import AskedQuestion
from medllm.train.recipe import Strength
from medllm.train.standardized import fold_projector, standardize_projector

# About one patch in eight of an image with a finding is covered.
_COVERED_WEIGHT = 5.0
# Images that the projector's standardization is taken from.
_SAMPLE = 256
# As many at a time: all hidden states of each are held.
_AT_ONCE = 16


class _Answering(nn.Module):
    """A network that answers and points, and gives its loss."""

    def __init__(
        self,
        model: Model,
        encoded: EncodedQuestions,
        n_findings: int,
        *,
        label_smoothing: float,
        location: float,
    ) -> None:
        super().__init__()
        self.network = model.network
        self.locator = nn.Linear(model.network.config.text_config.hidden_size, n_findings)
        self._encoded, self._grid = encoded, model.grid
        self._architecture = Llava()
        self._label_smoothing, self._location = label_smoothing, location

    def forward(self, **batch: torch.Tensor) -> Float[torch.Tensor, ""]:
        """Cross-entropy of the answers, in nats, plus that of the places."""
        encoded = self._encoded.take(batch["rows"].tolist())
        features = self._architecture.image_features(self.network, batch["pixel_values"])
        logits = answer_logits(self.network, features, encoded, self._architecture)
        loss = answer_loss(
            logits.float(), batch["labels"], batch["weights"], encoded, self._label_smoothing
        )
        places = self.locator(features.float())
        found = location_loss(
            places, batch["regions"], batch["regions_known"], batch["hidden"], self._grid
        )
        return loss + self._location * found


class ClosedQuestions(Task):
    """Answer closed questions; and, where it is known where a finding lies, point to it.

    Each image token is asked for the findings by a linear layer that is thrown away afterwards.
    That teaches the encoder small findings from few images, and keeps what it knows of a place at
    that place.

    Attributes:
        module: The model's network, trained in place, with that layer.
    """

    module: _Answering

    def __init__(
        self,
        model: Model,
        data: LabelledImages,
        asked: Sequence[AskedQuestion],
        *,
        always: int,
        sampled: int,
        strength: Strength,
        layer_decay: float,
        label_smoothing: float,
        location: float,
    ) -> None:
        """Prepare the questions.

        Args:
            model: What is trained; parameters that want no gradient are frozen.
            data: Training patients alone.
            asked: All questions, the columns of the labels; those of findings come first.
            always: How many of the first are asked at each step.
            sampled: How many of the others are drawn for each step.
            strength: How far images are changed.
            layer_decay: Factor on the rate a layer of the encoder, from its last to its first.
            label_smoothing: Share of the target given to the opposite answer.
            location: Weight of pointing.
        """
        self._data, self._strength, self._layer_decay = data, strength, layer_decay
        self._model = model
        self._first = [sum(len(q.wordings) for q in asked[:at]) for at in range(len(asked))]
        self._wordings = [len(question.wordings) for question in asked]
        self._always, self._sampled = always, min(sampled, len(asked) - always)
        # A question that is asked by chance weighs as if it were always asked.
        rare = (len(asked) - always) / max(1, self._sampled)
        self._scale = torch.tensor([1.0] * always + [rare] * (len(asked) - always))
        rows, columns = model.grid
        encoded = encode_questions(
            model.tokenizer,
            model.card.prompt_template,
            _in_all_wordings(model, asked),
            rows * columns,
        )
        self.module = _Answering(
            model,
            encoded,
            len(data.findings),
            label_smoothing=label_smoothing,
            location=location / data.known_places,
        )

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
        """Draw changed images, the questions, and their wordings."""
        others = len(self._first) - self._always
        drawn = torch.randperm(others, generator=generator)[: self._sampled] + self._always
        columns = torch.cat([torch.arange(self._always), drawn.sort().values])
        luck = torch.rand(len(columns), generator=generator).tolist()
        rows = [
            self._first[column] + int(chance * self._wordings[column])
            for column, chance in zip(columns.tolist(), luck, strict=True)
        ]
        batch = self._data.batch(
            chosen, generator, self._strength, self._model.card.preprocessing, share, device
        )
        batch["weights"] = (batch["weights"] * self._scale.to(device))[:, columns]
        batch["labels"] = batch["labels"][:, columns]
        batch["rows"] = torch.tensor(rows)
        return batch

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Give each layer of the encoder its own rate, lower towards the pixels."""
        depth = self._model.network.config.vision_config.num_hidden_layers
        return layered_groups(self.module, depth, learning_rate, self._layer_decay)

    def standardize(self) -> None:
        """Let the projector see standardized features while it is trained."""
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(len(self), generator=generator)[:_SAMPLE]
        contract, device = self._model.card.preprocessing, self._model.device
        batches = (
            contract.pixel_values(self._data.pixels(chosen).to(device).float() / 255)
            for chosen in torch.split(sample, _AT_ONCE)
        )
        standardize_projector(self.module.network, batches)

    def fold(self) -> None:
        """Fold that standardization into the projector's weights."""
        fold_projector(self.module.network)


def _in_all_wordings(model: Model, asked: Sequence[AskedQuestion]) -> list[Question]:
    first = model.card.questions[0]
    return [
        Question(question.key, text, yes=first.yes, no=first.no)
        for question in asked
        for text in question.wordings
    ]


def answer_loss(
    logits: Float[torch.Tensor, "batch questions vocabulary"],
    labels: Float[torch.Tensor, "batch questions"],
    weights: Float[torch.Tensor, "batch questions"],
    encoded: EncodedQuestions,
    label_smoothing: float,
) -> Float[torch.Tensor, ""]:
    """Cross-entropy of the next word against the first yes or no word of each question.

    The whole vocabulary competes, so that the network stays a language model whose most
    likely next word is its answer.

    Args:
        logits: At the answer positions.
        labels: 1 or 0; NaN where unknown, which costs nothing.
        weights: Weight of each label.
        encoded: The questions.
        label_smoothing: Share of the target given to the opposite word.

    Returns:
        Weighted sum over the known labels, over the number of images; in nats.
    """
    log_probabilities = F.log_softmax(logits, dim=-1)
    columns = torch.arange(logits.shape[1], device=logits.device)
    yes = log_probabilities[:, columns, [words[0][0] for words in encoded.yes]]
    no = log_probabilities[:, columns, [words[0][0] for words in encoded.no]]
    target = smoothed(labels, label_smoothing)
    cost = -(target * yes + (1 - target) * no)
    return (cost * weights * ~labels.isnan()).sum() / len(labels)


def smoothed(
    labels: Float[torch.Tensor, "batch questions"], label_smoothing: float
) -> Float[torch.Tensor, "batch questions"]:
    """Give a share of the target to the opposite answer; an unknown label counts as 0."""
    return labels.nan_to_num(0.0) * (1 - 2 * label_smoothing) + label_smoothing


def location_loss(
    logits: Float[torch.Tensor, "batch patches findings"],
    regions: Float[torch.Tensor, "batch findings cells cells"],
    known: Bool[torch.Tensor, "batch findings"],
    hidden: Float[torch.Tensor, "batch parts parts"],
    grid: tuple[int, int],
) -> Float[torch.Tensor, ""]:
    """Cross-entropy of each image token against the share of its patch that a finding covers.

    Args:
        logits: A value a token and finding.
        regions: Where each finding lies, 0 to 1.
        known: Whether that is known; what is not costs nothing.
        hidden: 1 where a part of the image cannot be seen, which costs nothing either.
        grid: Rows and columns of the patches.

    Returns:
        Mean over the patches, summed over the known findings, over the number of images; in
        nats. Covered patches, of which there are few, weigh more.
    """
    covered = F.adaptive_avg_pool2d(regions, grid).flatten(2).transpose(1, 2)
    cost = F.binary_cross_entropy_with_logits(
        logits,
        covered,
        reduction="none",
        pos_weight=torch.tensor(_COVERED_WEIGHT, device=logits.device),
    )
    seen = 1 - F.adaptive_avg_pool2d(F.interpolate(hidden[:, None], size=regions.shape[-1]), grid)
    cost = cost * seen.flatten(2).transpose(1, 2)
    return (cost.mean(dim=1) * known).sum() / len(logits)


def layered_groups(
    module: nn.Module, depth: int, learning_rate: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Give each layer of a module's encoder its own learning rate, lower towards the pixels.

    Args:
        module: Its encoder is called `vision_tower`.
        depth: Layers of the encoder.
        learning_rate: Of all that is not the encoder.
        layer_decay: Factor a layer, from the last to the first.

    Returns:
        The optimizer's groups; parameters that want no gradient are left out.
    """
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(_layer_of(name, depth), []).append(parameter)
    return [
        {"params": found, "lr": learning_rate * layer_decay ** (depth + 1 - layer)}
        for layer, found in sorted(layers.items())
    ]


def _layer_of(name: str, depth: int) -> int:
    """Number a parameter's layer by its name: 0 for embeddings, depth + 1 behind the encoder."""
    if "vision_tower" not in name:
        return depth + 1
    found = re.search(r"layers?\.(\d+)\.", name)
    if found:
        return int(found.group(1)) + 1
    return 0 if "embeddings" in name else depth

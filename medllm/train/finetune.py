"""Fine-tuning on closed questions: the whole network, all labelled findings of an image at once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import LlavaForConditionalGeneration

from medllm.models.model import Model
from medllm.models.scoring import EncodedQuestions, answer_logits
from medllm.train.images import change_exposure, draw_poses, move
from medllm.train.standardized import fold_projector, standardize_projector

logger = logging.getLogger(__name__)

# About one patch in eight of an image with a finding is covered.
_COVERED_WEIGHT = 5.0
# Images that the projector's standardization is taken from.
_SAMPLE = 256


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of fine-tuning.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step.
        learning_rate: Peak of one cycle, for the LLM and the projector.
        layer_decay: Factor a layer of the encoder, from its last to its first.
        weight_decay: AdamW's.
        label_smoothing: Share of the target spread over the answer.
        averaging: Decay of the exponential average of the weights, which is what is kept.
        seed: Seed of order and augmentation.
    """

    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 1e-3
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    averaging: float = 0.99
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images with labels a question.

    Attributes:
        pixels: Display values, 0 to 255.
        labels: 1 or 0; NaN where unknown.
        weights: Weight of each label in the loss, so that sources and classes are even.
        regions: Where each finding lies, 0 to 255, over a grid of cells.
        regions_known: Whether that is known.
    """

    pixels: UInt8[torch.Tensor, "images size size"]
    labels: Float[torch.Tensor, "images questions"]
    weights: Float[torch.Tensor, "images questions"]
    regions: UInt8[torch.Tensor, "images questions cells cells"]
    regions_known: Bool[torch.Tensor, "images questions"]


def finetune(
    model: Model,
    data: TrainingSet,
    settings: FinetuneSettings,
    after_epoch: Callable[[LlavaForConditionalGeneration], str],
) -> None:
    """Train a model's network in place; at the end it holds the averaged weights.

    Where it is known where a finding lies, each image token is also asked for it, by a linear
    layer that is thrown away afterwards. That teaches the encoder small findings from few
    images, and keeps what it knows of a place at that place.

    Args:
        model: Its card's questions are the columns of the labels.
        data: Training patients alone.
        settings: How long and how fast.
        after_epoch: Gives a line for the log from the averaged network; never chooses weights.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    encoded = model.encode()
    sample = data.pixels[torch.randperm(len(data.pixels), generator=generator)[:_SAMPLE]]
    standardize_projector(
        model.network, model.card.preprocessing.normalize(sample[:, None].float() / 255)
    )
    locator = torch.nn.Linear(model.network.config.text_config.hidden_size, data.labels.shape[1])
    groups = _parameter_groups(model.network, settings)
    groups.append({"params": list(locator.parameters()), "lr": settings.learning_rate})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
    steps = len(data.pixels) // settings.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [float(group["lr"]) for group in groups],
        total_steps=steps * settings.epochs,
        pct_start=0.15,
        cycle_momentum=False,
    )
    average = get_ema_multi_avg_fn(settings.averaging)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model.network, multi_avg_fn=average)
    for epoch in range(settings.epochs):
        started, total = time.monotonic(), 0.0
        model.network.train()
        order = torch.randperm(len(data.pixels), generator=generator)
        for step in range(steps):
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            poses = draw_poses(len(chosen), generator)
            display = change_exposure(move(data.pixels[chosen][:, None], poses), generator)
            pixel_values = model.card.preprocessing.normalize(display)
            with torch.autocast("cpu", torch.bfloat16):
                features = model.image_features(pixel_values)
                logits = answer_logits(model.network, features, encoded)
            labels, weights = data.labels[chosen], data.weights[chosen]
            tokens, smoothing = features.float(), settings.label_smoothing
            regions = move(data.regions[chosen], poses, padding_mode="zeros")
            loss = answer_loss(logits.float(), labels, weights, encoded, smoothing) + location_loss(
                locator(tokens), regions, data.regions_known[chosen], model.grid
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model.network)
            total += float(loss.detach())
        logger.info(
            "fine-tuning, epoch %d of %d: loss %.4f, %.0f s; %s",
            epoch + 1,
            settings.epochs,
            total / steps,
            time.monotonic() - started,
            after_epoch(averaged.module.eval()),
        )
    model.network.load_state_dict(averaged.module.state_dict())
    fold_projector(model.network)
    model.network.eval()


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
        Mean over the known labels, weighted; in nats.
    """
    log_probabilities = F.log_softmax(logits, dim=-1)
    columns = torch.arange(logits.shape[1], device=logits.device)
    yes = log_probabilities[:, columns, [ids[0] for ids in encoded.yes]]
    no = log_probabilities[:, columns, [ids[0] for ids in encoded.no]]
    target = labels.nan_to_num(0.0) * (1 - 2 * label_smoothing) + label_smoothing
    cost = -(target * yes + (1 - target) * no)
    weights = weights * ~labels.isnan()
    return (cost * weights).sum() / weights.sum().clamp_min(1e-6)


def location_loss(
    logits: Float[torch.Tensor, "batch patches questions"],
    regions: Float[torch.Tensor, "batch questions cells cells"],
    known: Bool[torch.Tensor, "batch questions"],
    grid: tuple[int, int],
) -> Float[torch.Tensor, ""]:
    """Cross-entropy of each image token against the share of its patch that a finding covers.

    Args:
        logits: A value a token and question.
        regions: Where each finding lies, 0 to 1.
        known: Whether that is known; what is not costs nothing.
        grid: Rows and columns of the patches.

    Returns:
        Mean over the known, in nats; covered patches, of which there are few, weigh more.
    """
    covered = F.adaptive_avg_pool2d(regions, grid).flatten(2).transpose(1, 2)
    cost = F.binary_cross_entropy_with_logits(
        logits, covered, reduction="none", pos_weight=torch.tensor(_COVERED_WEIGHT)
    )
    weights = known[:, None].expand_as(cost)
    return (cost * weights).sum() / weights.sum().clamp_min(1)


def _parameter_groups(
    network: LlavaForConditionalGeneration, settings: FinetuneSettings
) -> list[dict[str, Any]]:
    """Give each layer of the encoder its own learning rate, lower towards the pixels."""
    depth = network.config.vision_config.num_hidden_layers
    groups: dict[int, list[torch.nn.Parameter]] = {}
    for name, parameter in _trainable(network):
        groups.setdefault(_layer_of(name, depth), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate * settings.layer_decay ** (depth + 1 - layer),
        }
        for layer, parameters in sorted(groups.items())
    ]


def _trainable(
    network: LlavaForConditionalGeneration,
) -> Iterable[tuple[str, torch.nn.Parameter]]:
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


def _layer_of(name: str, depth: int) -> int:
    """Number a parameter's layer: 0 for the embeddings, depth + 1 behind the encoder."""
    if "vision_tower" not in name:
        return depth + 1
    found = re.search(r"layers?\.(\d+)\.", name)
    if found:
        return int(found.group(1)) + 1
    return 0 if "embeddings" in name else depth

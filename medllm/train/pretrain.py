"""Masked autoencoding of the vision encoder (He et al., CVPR 2022), by transformers' ViTMAE."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from medllm.data.preprocessing import Preprocessing
from medllm.train.images import change_exposure, draw_poses, move

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of masked autoencoding.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step.
        learning_rate: Peak of one cosine cycle with a warm-up of a twentieth.
        weight_decay: AdamW's.
        mask_ratio: Share of patches that is hidden.
        seed: Seed of weights, order, masks and augmentation.
    """

    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    seed: int = 0


def pretrain(
    config: ViTConfig,
    pixels: UInt8[torch.Tensor, "images size size"],
    preprocessing: Preprocessing,
    settings: PretrainSettings,
) -> ViTModel:
    """Train an encoder to fill in hidden patches; no label is used.

    Args:
        config: Shape of the encoder.
        pixels: Display values, 0 to 255, of training patients alone.
        preprocessing: For the normalization.
        settings: How long and how fast.

    Returns:
        The encoder, without the decoder.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    network = ViTMAEForPreTraining(_autoencoder_config(config, settings.mask_ratio))
    _place(network.vit.embeddings.position_embeddings)
    _place(network.decoder.decoder_pos_embed)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
    )
    steps = len(pixels) // settings.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.learning_rate,
        total_steps=steps * settings.epochs,
        pct_start=0.05,
        cycle_momentum=False,
    )
    for epoch in range(settings.epochs):
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(pixels), generator=generator)
        for step in range(steps):
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            # Mild: where each patch usually lies is what a short training can learn first.
            poses = draw_poses(len(chosen), generator, strength=0.3)
            display = move(pixels[chosen][:, None], poses)
            display = change_exposure(display, generator, texture=False)
            loss = network(preprocessing.normalize(display)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        logger.info(
            "masked autoencoding, epoch %d of %d: loss %.4f, %.0f s",
            epoch + 1,
            settings.epochs,
            total / steps,
            time.monotonic() - started,
        )
    return _encoder_of(network, config)


def _autoencoder_config(config: ViTConfig, mask_ratio: float) -> ViTMAEConfig:
    return ViTMAEConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_channels=config.num_channels,
        decoder_hidden_size=config.hidden_size // 2,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=config.hidden_size * 2,
        norm_pix_loss=True,
        mask_ratio=mask_ratio,
    )


def _place(embeddings: torch.nn.Parameter) -> None:
    """Fill in fixed positions, which transformers 5.23 leaves at zero in a new network.

    With zeros the decoder cannot tell one hidden patch from another, and the loss stays at
    the variance of a patch, which is 1.
    """
    side = math.isqrt(embeddings.shape[1] - 1)
    positions = build_2d_sinusoidal_position_embedding(
        side, side, embeddings.shape[2], cls_token=True
    )
    embeddings.data.copy_(positions[None])


def _encoder_of(network: ViTMAEForPreTraining, config: ViTConfig) -> ViTModel:
    encoder = ViTModel(config, add_pooling_layer=False)
    missing, unexpected = encoder.load_state_dict(network.vit.state_dict(), strict=False)
    if missing or unexpected:
        raise RuntimeError(f"the two encoders differ: missing {missing}, unexpected {unexpected}.")
    return encoder

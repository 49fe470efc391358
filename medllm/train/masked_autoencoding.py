"""Masked autoencoding of the vision encoder (He et al., CVPR 2022), by transformers' ViTMAE."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from medllm.data.preprocessing import Preprocessing
from medllm.train.augmentation import MILD, change, draw_changes
from medllm.train.loop import Task


class _Filling(nn.Module):
    """An autoencoder that gives its loss."""

    def __init__(self, network: ViTMAEForPreTraining) -> None:
        super().__init__()
        self.network = network

    def forward(self, **batch: torch.Tensor) -> Float[torch.Tensor, ""]:
        """Mean squared error of the hidden patches, each normalised; 1 is the patches' variance."""
        loss: torch.Tensor = self.network(**batch).loss
        return loss


class MaskedAutoencoding(Task):
    """Fill in hidden patches; no label is used.

    Attributes:
        module: Encoder and decoder; the loss is the mean squared error of the hidden patches,
            each normalised, so that 1 is what knowing only each patch's mean gives.
    """

    module: _Filling

    def __init__(
        self,
        config: ViTConfig,
        pixels: Sequence[UInt8[torch.Tensor, "_ size size"]],
        preprocessing: Preprocessing,
        *,
        mask_ratio: float,
        seed: int,
    ) -> None:
        """Make a new encoder.

        Args:
            config: Its shape.
            pixels: Display values, 0 to 255, of training patients alone, by source; what is named
                twice is shown twice. They are not copied, and may lie on the disk.
            preprocessing: For the normalization.
            mask_ratio: Share of patches that is hidden.
            seed: Of the weights.
        """
        self._preprocessing, self._config = preprocessing, config
        self._pixels: ConcatDataset[torch.Tensor] = ConcatDataset(pixels)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ViTMAEForPreTraining(_autoencoder_config(config, mask_ratio))
        _place(network.vit.embeddings.position_embeddings)
        _place(network.decoder.decoder_pos_embed)
        self.module = _Filling(network)

    def __len__(self) -> int:
        """Count the images."""
        return len(self._pixels)

    def batch(
        self,
        chosen: Int64[torch.Tensor, " batch"],
        generator: torch.Generator,
        share: slice,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Draw changed images, and the order in which patches are hidden."""
        changes = draw_changes(len(chosen), generator, MILD).take(share, device)
        patches = (self._config.image_size // self._config.patch_size) ** 2
        noise = torch.rand(len(chosen), patches, generator=generator)
        mine = torch.stack([self._pixels[row] for row in chosen[share].tolist()])
        display = change(mine.to(device), changes)
        pixel_values = self._preprocessing.pixel_values(display[:, 0])
        return {"pixel_values": pixel_values, "noise": noise[share].to(device)}

    def encoder(self) -> ViTModel:
        """Give the encoder, without the decoder."""
        trained = self.module.network.vit
        encoder = ViTModel(self._config, add_pooling_layer=False)
        missing, unexpected = encoder.load_state_dict(trained.state_dict(), strict=False)
        if missing or unexpected:
            raise RuntimeError(f"the encoders differ: missing {missing}, unexpected {unexpected}.")
        return encoder


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
        decoder_num_attention_heads=config.num_attention_heads,
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

"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: merged patches with positions in rows and columns."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import nn

from medllm.errors import CheckpointError
from medllm.models.architectures.vision_language import VisionLanguage

# Pixels a side of the input: some 400 image tokens, in which a radiograph's findings are still
# seen. The family takes any size, and its cost grows with the square of the side.
_SIDE = 576
# Of time, rows and columns where config.json has none; Qwen2-VL's own sum up to the same.
_USUAL_SECTIONS = (24, 20, 20)


class QwenVL(VisionLanguage):
    """The Qwen family on a square image; of Qwen3-VL the deeper layers' tokens are part of each.

    Source:
        Bai et al., Qwen2.5-VL technical report, 2025, section 2.1.
    """

    def geometry(self, config: Any, processor: Any) -> dict[str, Any] | None:
        """Take a square of about 576 pixels, within what the image processor allows."""
        _check_turns(config.text_config)
        unit = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        least, most = (
            math.sqrt(processor.size[f"{edge}_edge"]) for edge in ("shortest", "longest")
        )
        side = max(least, min(_SIDE, most))
        return {"size": int(side // unit * unit), "aspect": "pad"}

    def side(self, config: Any, size: int) -> int:
        """Count merged patches."""
        vision = config.vision_config
        return int(size // (vision.patch_size * vision.spatial_merge_size))

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Cut patches in the order of their merging, each doubled in time as for a still image."""
        vision = config.vision_config
        batch, channels, size, _ = pixel_values.shape
        patch, merge = vision.patch_size, vision.spatial_merge_size
        blocks = (size // (patch * merge), merge, patch)
        cut = pixel_values.reshape(batch, channels, *blocks, *blocks)
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)  # block row, column, row, column, channel, pixels
        cut = cut[:, :, :, :, :, :, None].expand(*[-1] * 6, vision.temporal_patch_size, -1, -1)
        return {
            "pixel_values": cut.reshape(batch * (size // patch) ** 2, -1),
            "image_grid_thw": _grid_thw(batch, size // patch, pixel_values.device),
        }

    def image_features(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch tokens width"]:
        """Encode images; what enters at deeper layers of the LLM is put beside, token by token."""
        inputs = self.image_inputs(network.config, pixel_values)
        outputs = network.model.get_image_features(**inputs, return_dict=True)
        levels = [outputs.pooler_output, *_deepstack(outputs)]
        flat = [level if torch.is_tensor(level) else torch.cat(list(level)) for level in levels]
        return torch.cat(
            [level.reshape(len(pixel_values), -1, level.shape[-1]) for level in flat], -1
        )

    def encoded_image(
        self, config: Any, features: Float[torch.Tensor, "batch tokens width"]
    ) -> Any:
        """Take the levels apart again."""
        first, *deeper = torch.split(features, config.text_config.hidden_size, dim=-1)
        return SimpleNamespace(
            pooler_output=list(first), deepstack_features=[list(level) for level in deeper]
        )

    def prompt_inputs(
        self, config: Any, ids: Int64[torch.Tensor, "batch tokens"], n_tokens: int
    ) -> dict[str, Any]:
        """Mark the image's tokens and say how they lie; without, they would lie in one row."""
        side = math.isqrt(n_tokens) * config.vision_config.spatial_merge_size
        return {
            "mm_token_type_ids": (ids == config.image_token_id).int(),
            "image_grid_thw": _grid_thw(len(ids), side, ids.device),
        }

    def suffix_inputs(
        self, network: Any, start: int, ids: Int64[torch.Tensor, "rows tokens"]
    ) -> dict[str, Any]:
        """Count on from the image, which takes fewer positions than it has tokens."""
        # The same for all images of the batch, since all have the same prefix.
        delta = network.model.rope_deltas.flatten()[0]
        positions = start + delta + torch.arange(ids.shape[1], device=ids.device)
        return {"position_ids": positions.expand(len(ids), -1)}

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name head, LLM, merger and encoder; the merger is inside the encoder."""
        inner = network.model
        return [
            ("answer head", network.get_output_embeddings()),
            ("LLM", inner.language_model),
            ("projector", inner.visual.merger),
            ("encoder", inner.visual),
        ]


def _check_turns(text: Any) -> None:
    """Refuse what Qwen3-VL computes with in silence, and answers wrongly."""
    sections = text.rope_parameters.get("mrope_section", _USUAL_SECTIONS)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if sum(sections) != width // 2:
        raise CheckpointError(
            f"mrope_section of config.json is {list(sections)}, which sums up to {sum(sections)}; "
            f"a head of width {width} wants {width // 2}. Positions would be misread: fetch its "
            "config.json again."
        )


def _grid_thw(batch: int, side: int, device: torch.device) -> Int64[torch.Tensor, "batch 3"]:
    return torch.tensor([[1, side, side]] * batch, device=device)


def _deepstack(outputs: Any) -> list[Any]:
    return list(getattr(outputs, "deepstack_features", None) or [])

"""Tiny configurations of the Qwen-VL family, which reads images of any size."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
)

from tests.models.architectures import chat_templates
from tests.models.architectures.family import DECODER, Family, text_settings
from tests.models.architectures.vocabulary import build_tokenizer

VISION = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def qwen_tokenizer(template: str) -> PreTrainedTokenizerFast:
    return build_tokenizer(
        (
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        template=template,
    )


def _qwen(
    config_class: type[PreTrainedConfig],
    *,
    template: str,
    patch_size: int,
    vision: dict[str, Any],
    text: dict[str, Any],
    rope: dict[str, Any],
    images: dict[str, Any],
    processor_class: str,
) -> Family:
    tokenizer = qwen_tokenizer(template)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], **rope}
    config = config_class(
        vision_config={**VISION, "patch_size": patch_size, **vision},
        text_config={**DECODER, **text_settings(tokenizer), "rope_parameters": rope, **text},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return Family(
        config,
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112},
            patch_size=patch_size,
            merge_size=2,
            temporal_patch_size=2,
            **images,
        ),
        tokenizer=tokenizer,
        # No `processor_config.json`, as on the hub: the image processor's file names the processor.
        processor_class=processor_class,
        image_size=112,
        grid=(112 // (2 * patch_size),) * 2,
    )


def qwen2_vl() -> Family:
    """Qwen2-VL: 8 x 8 patches merged to 4 x 4 tokens."""
    return _qwen(
        Qwen2VLConfig,
        template=chat_templates.QWEN2_VL,
        patch_size=14,
        # `hidden_size` is that of the text here, and `embed_dim` that of the tower.
        vision={"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
        text={},
        rope={},
        images={},
        processor_class="Qwen2VLProcessor",
    )


def qwen2_5_vl() -> Family:
    """Qwen2.5-VL: the same, the first layer in windows of 2 x 2 tokens."""
    return _qwen(
        Qwen2_5_VLConfig,
        template=chat_templates.QWEN2_VL,
        patch_size=14,
        vision={
            "intermediate_size": 48,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        text={},
        rope={},
        images={},
        processor_class="Qwen2_5_VLProcessor",
    )


def qwen3_vl() -> Family:
    """Qwen3-VL: 14 x 14 patches merged to 7 x 7 tokens, which enter the text's first layer too."""
    return _qwen(
        Qwen3VLConfig,
        template=chat_templates.QWEN3_VL,
        patch_size=8,
        vision={
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text={"head_dim": 8},
        rope={"mrope_interleaved": True},
        images={"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        processor_class="Qwen3VLProcessor",
    )

"""Tiny configurations of the Llava family, over the towers that people put into it."""

from __future__ import annotations

from typing import Any

from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from tests.models.architectures import chat_templates
from tests.models.architectures.family import DECODER, TOWER, Family, text_settings
from tests.models.architectures.vocabulary import build_tokenizer

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def llama_tokenizer(template: str, *, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    return build_tokenizer(
        ("<image>",),
        pad="<pad>",
        eos="</s>",
        bos="<s>",
        unk="<unk>",
        adds_bos=adds_bos,
        template=template,
    )


def clip_images(size: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def without_cls(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Settings of a processor over a tower of 14-pixel patches, whose class token is dropped."""
    return {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": tokenizer.chat_template,
    }


def llava() -> Family:
    """Llava 1.5: CLIP's features before the last layer, without the class token."""
    tokenizer = llama_tokenizer(chat_templates.VICUNA_WITH_BOS)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER, image_size=56, patch_size=14, projection_dim=32),
        text_config=LlamaConfig(**DECODER, **text_settings(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = LlavaProcessor(clip_images(56), tokenizer, **without_cls(tokenizer))
    return Family(config, processor=processor, image_size=56, grid=(4, 4))


def llava_siglip() -> Family:
    """Llava over SigLIP: it has no class token, so all of its last layer is taken.

    Its patches end four pixels before its square does, as those of SigLIP so400m of 384 do six.
    """
    tokenizer = build_tokenizer(
        ("<|im_start|>", "<image>"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        template=chat_templates.LLAVA_QWEN,
    )
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            **TOWER, image_size=60, patch_size=8, vision_use_head=False
        ),
        text_config=Qwen2Config(**DECODER, **text_settings(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=49,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return Family(
        config,
        image_processor=SiglipImageProcessorPil(size={"height": 60, "width": 60}),
        tokenizer=tokenizer,
        processor_settings={
            "image_token": "<image>",
            "num_additional_image_tokens": 0,
            "patch_size": 8,
            "vision_feature_select_strategy": "full",
        },
        processor_class="LlavaProcessor",
        image_size=60,
        grid=(7, 7),
    )


def llava_dinov2() -> Family:
    """Llava over DINOv2, as radiology has it; only the template writes bos, never the tokenizer."""
    tokenizer = llama_tokenizer(chat_templates.VICUNA_WITH_BOS, adds_bos=False)
    tower = {key: value for key, value in TOWER.items() if key != "intermediate_size"}
    config = LlavaConfig(
        vision_config=Dinov2Config(**tower, mlp_ratio=2, image_size=70, patch_size=14),
        text_config=LlamaConfig(**DECODER, **text_settings(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=25,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    images = BitImageProcessorPil(size={"shortest_edge": 70}, crop_size={"height": 70, "width": 70})
    processor = LlavaProcessor(images, tokenizer, **without_cls(tokenizer))
    return Family(config, processor=processor, image_size=70, grid=(5, 5))


def llava_next() -> Family:
    """LLaVA-NeXT: a square image larger than a tile is seen whole and in 2 x 2 tiles."""
    tokenizer = llama_tokenizer(chat_templates.MISTRAL)  # the tokenizer alone writes bos
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, image_size=56, patch_size=14, projection_dim=32),
        text_config=MistralConfig(**DECODER, **text_settings(tokenizer), head_dim=8),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=PINPOINTS,
    )
    processor = LlavaNextProcessor(images, tokenizer, **without_cls(tokenizer))
    return Family(config, processor=processor, image_size=112, grid=(4, 4))

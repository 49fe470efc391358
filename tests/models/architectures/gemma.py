"""Tiny configurations of PaliGemma and Gemma 3, whose images are read in both directions."""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from tests.models.architectures import chat_templates
from tests.models.architectures.family import DECODER, TOWER, Family, text_settings
from tests.models.architectures.vocabulary import build_tokenizer


def gemma_tokenizer(*, template: str | None, adds_bos: bool) -> PreTrainedTokenizerFast:
    named = {"image_token": "<image_soft_token>" if template else "<image>"}
    if template:
        named |= {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    return build_tokenizer(
        ("<start_of_turn>", "<end_of_turn>"),
        named=named,
        pad="<pad>",
        eos="<eos>",
        bos="<bos>",
        unk="<unk>",
        adds_bos=adds_bos,
        template=template,
    )


def gemma3() -> Family:
    """Gemma 3: 8 x 8 patches pooled to 4 x 4 tokens; a sliding and a full layer."""
    tokenizer = gemma_tokenizer(template=chat_templates.GEMMA, adds_bos=True)
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(
            **{**TOWER, "num_hidden_layers": 2}, image_size=56, patch_size=7, vision_use_head=False
        ),
        text_config=Gemma3TextConfig(
            **DECODER,
            **text_settings(tokenizer),
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=16,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=16)
    processor = Gemma3Processor(
        images, tokenizer, chat_template=tokenizer.chat_template, image_seq_length=16
    )
    return Family(config, processor=processor, image_size=56, grid=(4, 4))


def _paligemma(text_config: type[GemmaConfig | Gemma2Config], **text: Any) -> Family:
    tokenizer = gemma_tokenizer(template=None, adds_bos=False)
    images = SiglipImageProcessorPil(size={"height": 56, "width": 56}, resample=3)
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(images, tokenizer)  # adds 1152 tokens to the tokenizer
    settings = text_settings(tokenizer)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            **TOWER, image_size=56, patch_size=14, projection_dim=32, vision_use_head=False
        ),
        text_config=text_config(**DECODER, **settings, head_dim=8, **text),
        image_token_index=tokenizer.image_token_id,
        projection_dim=32,
        **{key: value for key, value in settings.items() if key != "vocab_size"},
    )
    return Family(config, processor=processor, image_size=56, grid=(4, 4))


def paligemma() -> Family:
    """PaliGemma: the prompt is read in both directions and has no chat template."""
    return _paligemma(GemmaConfig)


def paligemma2() -> Family:
    """PaliGemma 2: the same, with Gemma 2's sliding window and capped logits."""
    return _paligemma(
        Gemma2Config,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )

"""New networks: a vision encoder, a projector and a causal LLM joined as one LLaVA network."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

IMAGE_TOKEN = "<image>"  # noqa: S105  (no password)
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", IMAGE_TOKEN)

# Encoders that put no CLS token in front of the patch tokens.
_WITHOUT_CLS = ("siglip_vision_model", "siglip2_vision_model")


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer that knows the words of some texts.

    Args:
        texts: Prompts and answers; their words in lower case are the vocabulary.

    Returns:
        A tokenizer that begins each text with `<s>` and knows `<image>`.
    """
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )


def select_strategy(vision_config: PreTrainedConfig) -> str:
    """Say how LLaVA takes the patch tokens out of an encoder's tokens.

    A SigLIP tower under `default` would lose its top left patch without a word.

    Args:
        vision_config: Configuration of the encoder.

    Returns:
        `default`, which drops the first token, for an encoder with a CLS token; else `full`.
    """
    return "full" if vision_config.model_type in _WITHOUT_CLS else "default"


def build_network(
    vision_config: PreTrainedConfig,
    text_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vision_feature_layer: int = -1,
    seed: int = 0,
) -> LlavaForConditionalGeneration:
    """Join any Hugging Face vision encoder with any causal LLM, with random weights.

    Args:
        vision_config: ViT, DINOv2, CLIP or SigLIP vision configuration.
        text_config: Configuration of a causal LLM; its vocabulary is set to the tokenizer's.
        tokenizer: Knows `<image>`.
        vision_feature_layer: Hidden state of the encoder that goes to the projector.
        seed: Seed of the weights.

    Returns:
        The network, in float32 and evaluation mode.

    Raises:
        ValueError: The tokenizer does not know `<image>`.
    """
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id is None or image_token_id == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer does not know {IMAGE_TOKEN}; add it as a special token.")
    text_config.vocab_size = len(tokenizer)
    text_config.pad_token_id = tokenizer.pad_token_id
    text_config.bos_token_id = tokenizer.bos_token_id
    text_config.eos_token_id = tokenizer.eos_token_id
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=image_token_id,
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy=select_strategy(vision_config),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).eval()

"""Tiny configurations of Idefics3, SmolVLM and InternVL: large images in tiles, or here in one."""

from __future__ import annotations

from transformers import (
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SmolVLMConfig,
    SmolVLMImageProcessorPil,
)

from tests.models.architectures import chat_templates
from tests.models.architectures.family import DECODER, TOWER, Family, text_settings
from tests.models.architectures.vocabulary import build_tokenizer

TILE = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 56}}
GRID = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
MARKERS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *GRID)


def idefics3() -> Family:
    """Idefics3: 8 x 8 patches shuffled into 4 x 4 tokens; tokenizer and template both write bos."""
    tokenizer = build_tokenizer(
        MARKERS,
        pad="<|finetune_right_pad_id|>",
        eos="<|end_of_text|>",
        bos="<|begin_of_text|>",
        adds_bos=True,
        template=chat_templates.IDEFICS3,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(**TILE, do_image_splitting=False),
        tokenizer,
        image_seq_len=16,
        chat_template=tokenizer.chat_template,
    )
    config = Idefics3Config(
        vision_config={**TOWER, "image_size": 56, "patch_size": 7},
        text_config=LlamaConfig(**DECODER, **text_settings(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return Family(config, processor=processor, image_size=56, grid=(4, 4))


def smolvlm(size: int = 56) -> Family:
    """SmolVLM: as Idefics3; its bos is the marker of a message, written by the template."""
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = build_tokenizer(
        GRID,
        named=named,
        pad="<|im_end|>",
        eos="<end_of_utterance>",
        bos="<|im_start|>",
        template=chat_templates.SMOLVLM,
    )
    config = SmolVLMConfig(
        vision_config={**TOWER, "image_size": size, "patch_size": 7},
        text_config=LlamaConfig(**DECODER, **text_settings(tokenizer)),
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
    )
    return Family(
        config,
        image_processor=SmolVLMImageProcessorPil(
            size={"longest_edge": size},
            max_image_size={"longest_edge": size},
            do_image_splitting=False,
        ),
        tokenizer=tokenizer,
        processor_settings={"image_seq_len": 16},
        processor_class="SmolVLMProcessor",
        image_size=size,
        grid=(4, 4),
    )


def smolvlm_so400m() -> Family:
    """SmolVLM over SigLIP so400m of 384 pixels, whose patches of 14 end six before its tile."""
    return smolvlm(size=60)


def internvl_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(
        ("<|im_start|>",),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        pad="<|endoftext|>",
        eos="<|im_end|>",
        template=chat_templates.INTERNVL,
    )


def internvl() -> Family:
    """InternVL: 8 x 8 patches shuffled into 4 x 4 tokens, the class token dropped."""
    tokenizer = internvl_tokenizer()
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**TOWER, image_size=56, patch_size=7),
        text_config=Qwen2Config(**DECODER, **text_settings(tokenizer)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=16,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
    )
    images = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=False)
    return Family(
        config,
        image_processor=images,
        tokenizer=tokenizer,
        processor_settings={"image_seq_length": 16},
        processor_class="InternVLProcessor",
        image_size=56,
        grid=(4, 4),
    )

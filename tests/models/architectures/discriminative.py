"""Tiny configurations of models that answer without words: image-text pairs and classifiers."""

from __future__ import annotations

from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextImageProcessorPil,
    ResNetConfig,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipProcessor,
    SiglipTextConfig,
    SiglipVisionConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessorPil,
)

from tests.models.architectures.family import TOWER, Family, labels, text_settings
from tests.models.architectures.vocabulary import build_clip_tokenizer, build_tokenizer

TEXT_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


def clip() -> Family:
    """CLIP: the class token of 4 x 4 patches against the text's end token."""
    tokenizer = build_clip_tokenizer(length=32)
    config = CLIPConfig(
        vision_config=CLIPVisionConfig(**TOWER, image_size=56, patch_size=14, projection_dim=24),
        text_config=CLIPTextConfig(**TEXT_TOWER, **text_settings(tokenizer), projection_dim=24),
        projection_dim=24,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    return Family(
        config,
        processor=CLIPProcessor(images, tokenizer),
        constants={"logit_scale": 2.6592},
        image_size=56,
    )


def siglip() -> Family:
    """SigLIP: 7 x 7 patches, pooled by attention; texts are filled up to their full length."""
    tokenizer = build_tokenizer(
        pad="</s>",
        eos="</s>",
        unk="<unk>",
        adds_eos=True,
        length=TEXT_TOWER["max_position_embeddings"],
        input_names=("input_ids",),  # no mask: the padding is read too
    )
    config = SiglipConfig(
        vision_config=SiglipVisionConfig(**TOWER, image_size=56, patch_size=8),
        text_config=SiglipTextConfig(**TEXT_TOWER, **text_settings(tokenizer)),
    )
    images = SiglipImageProcessorPil(size={"height": 56, "width": 56})
    return Family(
        config,
        processor=SiglipProcessor(images, tokenizer),
        constants={"logit_scale": 2.3, "logit_bias": -6.0},
        image_size=56,
    )


def vit_bert() -> Family:
    """ViT and BERT behind a projection each, both read at their class tokens."""
    tokenizer = build_tokenizer(
        pad="<pad>", bos="<s>", eos="</s>", unk="<unk>", adds_bos=True, adds_eos=True, length=32
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**TOWER, image_size=56, patch_size=14),
        BertConfig(**TEXT_TOWER, **text_settings(tokenizer)),
        projection_dim=24,
    )
    images = ViTImageProcessorPil(size={"height": 56, "width": 56})
    return Family(
        config,
        processor=VisionTextDualEncoderProcessor(images, tokenizer),
        constants={"logit_scale": 2.6592},
        image_size=56,
    )


def vit_classifier() -> Family:
    """ViT that chooses between two classes."""
    config = ViTConfig(
        **TOWER,
        image_size=56,
        patch_size=7,
        **labels("normal", "pneumonia"),
        problem_type="single_label_classification",
    )
    images = ViTImageProcessorPil(size={"height": 56, "width": 56})
    return Family(config, image_processor=images, image_size=56)


def resnet_classifier() -> Family:
    """ResNet with a yes or no for each finding; resized to 64 pixels and cropped to 56."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="basic",
        **labels("Pneumonia", "Effusion", "Cardiomegaly"),
        problem_type="multi_label_classification",
    )
    images = ConvNextImageProcessorPil(size={"shortest_edge": 56}, crop_pct=0.875)
    return Family(config, image_processor=images, std=0.1, image_size=64)

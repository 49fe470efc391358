"""Tiny configurations of more classifiers, each of which has something that others have not."""

from __future__ import annotations

from collections.abc import Callable

from transformers import (
    BeitConfig,
    BeitImageProcessorPil,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    DeiTConfig,
    DeiTImageProcessorPil,
    MobileNetV2Config,
    MobileNetV2ImageProcessorPil,
    SwinConfig,
    ViTImageProcessorPil,
)

from tests.models.architectures.family import TOWER, Family, labels

MANY = {"problem_type": "multi_label_classification", **labels("Edema", "Mass", "Pneumothorax")}


def beit() -> Family:
    """A pool of patches and a scale in each layer."""
    tower = {key: value for key, value in TOWER.items() if key != "hidden_size"}
    config = BeitConfig(
        hidden_size=32, **tower, image_size=56, patch_size=8, layer_scale_init_value=0.5, **MANY
    )
    images = BeitImageProcessorPil(size={"height": 56, "width": 56}, do_center_crop=False)
    return Family(config, image_processor=images, image_size=56)


def swin() -> Family:
    """Its own patches, of 2 pixels, would be a map of 32 x 32."""
    config = SwinConfig(
        image_size=64,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
        **MANY,
    )
    images = ViTImageProcessorPil(size={"height": 64, "width": 64})
    return Family(config, image_processor=images, image_size=64)


def convnext() -> Family:
    """From 384 pixels on its processor cuts no margin off."""
    config = ConvNextConfig(
        hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, layer_scale_init_value=0.5, **MANY
    )
    images = ConvNextImageProcessorPil(size={"shortest_edge": 384}, crop_pct=0.875)
    return Family(config, image_processor=images, image_size=384)


def mobilenet() -> Family:
    """Its processor brings the shorter edge to more than it cuts out."""
    config = MobileNetV2Config(image_size=64, depth_multiplier=0.25, **MANY)
    images = MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
    )
    return Family(config, image_processor=images, std=0.3, image_size=72)


def deit() -> Family:
    """Its processor stretches to a square, and cuts a smaller one out of it."""
    # The published weights are of two kinds of DeiT; the configuration says which.
    kind = ["DeiTForImageClassification"]
    config = DeiTConfig(**TOWER, image_size=56, patch_size=14, architectures=kind, **MANY)
    images = DeiTImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 56}
    )
    return Family(config, image_processor=images, image_size=64)


MORE: dict[str, Callable[[], Family]] = {
    "beit": beit,
    "swin": swin,
    "convnext": convnext,
    "mobilenet": mobilenet,
    "deit": deit,
}

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from medllm.data import Preprocessing
from medllm.errors import CheckpointError
from medllm.models import join_pretrained
from medllm.phantom import make_phantom

FINDINGS = ["pneumonia", "effusion", "enlarged_cardiomediastinum"]
ENCODERS = ["vit", "dinov2", "clip", "siglip"]


def test_the_encoders_own_preprocessing_is_taken_over(joined):
    half = (0.5,) * 3
    same = {"channels": 3, "size": 32, "normalization": "fixed"}
    assert joined("siglip", "llama").card.preprocessing == Preprocessing(
        **same, unread=4, interpolation="bicubic", mean=half, std=half
    )
    assert joined("vit", "llama").card.preprocessing == Preprocessing(
        **same, interpolation="bilinear", mean=(0.4,) * 3, std=half
    )
    clip = Preprocessing(
        **same,
        aspect="crop",
        interpolation="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    assert joined("clip", "llama").card.preprocessing == clip
    assert joined("dinov2", "llama").card.preprocessing == dataclasses.replace(
        clip, shortest_edge=36
    )


def _grey_steps(difference, contract):
    """Largest difference in steps of 8-bit grey; tests/data/test_preprocessing.py has the limit."""
    std = torch.tensor(contract.std)[:, None, None]
    return (difference * std).abs().max() * 255


def test_a_radiograph_is_prepared_as_the_encoders_image_processor_does_it(hub, joined):
    grey = np.rint(make_phantom(3, size=200).pixels[:150] * 255).astype(np.uint8)
    for vision in ENCODERS:
        model = joined(vision, "qwen2")
        processor = AutoImageProcessor.from_pretrained(hub.vision[vision], backend="pil")
        theirs = processor(Image.fromarray(np.stack([grey] * 3, -1)), return_tensors="pt")
        ours = model.card.preprocessing.prepare(grey.astype(np.float32) / 255)
        read = theirs["pixel_values"][..., :32, :32]
        assert _grey_steps(read - ours, model.card.preprocessing) < 1.2


def _configure(folder, **values):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("vision", "values", "message"),
    [
        ("vit", {"do_rescale": False}, "do_rescale is false, so the range"),
        ("vit", {"do_resize": False}, "do_resize False; wanted is a square"),
        ("vit", {"size": {"height": 32, "width": 40}}, "wanted is a square"),
        ("clip", {"do_center_crop": False}, "wanted is a square"),
        ("clip", {"size": {"shortest_edge": 24}}, "shortest_edge is 24 and size is 32"),
        ("vit", {"resample": 4}, "resample is 4"),
        (
            "vit",
            {"size": {"height": 48, "width": 48}},
            "size is 48 and the encoder's image_size 32",
        ),
        ("dinov2", {"crop_size": {"height": 30, "width": 30}}, "size 30 is no multiple of .* 8"),
        ("vit", {"image_mean": [0.5]}, "image processor of .* must have 3"),
        ("vit", {"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "of shape"),
        ("vit", {"image_processor_type": "NoImageProcessor"}, "does not open"),
        # It takes one away after the rescaling.
        (
            "vit",
            {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True},
            r"does more than its size, crop, mean and std say: an image differs by \d+",
        ),
    ],
)
def test_an_image_processor_that_does_not_fit_is_refused(vision, values, message, hub, copy):
    folder = copy(vision)
    _configure(folder, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        join_pretrained(folder, hub.text["llama"], FINDINGS)
    assert "preprocessing" in str(caught.value)  # the remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ({"do_normalize": False}, 0, 1),
        ({"do_normalize": False, "rescale_factor": 1 / 51}, 0, 5),
        ({"rescale_factor": 2 / 255, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, -1, 1),
    ],
)
def test_another_range_is_taken_over_too(values, low, high, hub, copy):
    folder = copy("vit")
    _configure(folder, **values)
    model = join_pretrained(folder, hub.text["llama"], FINDINGS)
    ramp = np.linspace(0, 1, 64, dtype=np.float32) * np.ones((64, 1), dtype=np.float32)
    prepared = model.card.preprocessing.prepare(ramp)
    # The ends of the ramp are mixed with their neighbours.
    assert prepared.min().item() == pytest.approx(low, abs=0.03 * (high - low))
    assert prepared.max().item() == pytest.approx(high, abs=0.03 * (high - low))


def test_the_newer_name_of_the_image_processors_file_is_read_too(hub, joined, copy):
    folder = copy("clip")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    model = join_pretrained(folder, hub.text["llama"], FINDINGS)
    assert model.card.preprocessing == joined("clip", "llama").card.preprocessing


def test_without_an_image_processor_the_contract_must_be_given(hub, copy):
    folder = copy("dinov2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"neither preprocessor_config.json .* preprocessing="
    ):
        join_pretrained(folder, hub.text["llama"], FINDINGS)
    # DINOv2 fits its positions to any whole number of patches.
    contract = Preprocessing(size=64, channels=3)
    model = join_pretrained(folder, hub.text["llama"], FINDINGS, preprocessing=contract)
    assert model.grid == (8, 8)
    with pytest.raises(CheckpointError, match="gives 1 channels and the encoder takes 3"):
        join_pretrained(
            folder, hub.text["llama"], FINDINGS, preprocessing=Preprocessing(size=64, channels=1)
        )

"""Scores of a checkpoint by the plainest route: its own processor, one forward pass, no cache."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    InternVLProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

# Their processors want torchvision, for videos alone.
WITH_VIDEO: dict[str, type[ProcessorMixin]] = {
    "qwen2_vl": Qwen2VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
    "internvl": InternVLProcessor,
    "smolvlm": SmolVLMProcessor,
}
LENGTH_SETTINGS = ("image_seq_length", "image_seq_len")


def _without_video(folder: Path, base: type[ProcessorMixin]) -> ProcessorMixin:
    """Build the processor from its parts, with no video processor among them."""

    class NoVideo(base):
        def check_argument_for_proper_class(self, name: str, arg: Any) -> Any:
            if name == "video_processor" and arg is None:
                return None
            return super().check_argument_for_proper_class(name, arg)

    words = AutoTokenizer.from_pretrained(folder)
    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    settings = folder / "processor_config.json"
    saved = json.loads(settings.read_text()) if settings.exists() else {}
    lengths = {name: saved[name] for name in LENGTH_SETTINGS if name in saved}
    # SmolVLM spells the number of a video's frames with this package, and refuses to be without.
    spelled = mock.patch.object(processing_smolvlm, "num2words", str)
    with spelled if base is SmolVLMProcessor else nullcontext():
        return NoVideo(
            images, words, video_processor=None, chat_template=words.chat_template, **lengths
        )


def plain_processor(folder: Path) -> ProcessorMixin:
    """Open the checkpoint's own processor."""
    model_type = AutoConfig.from_pretrained(folder).model_type
    if model_type in WITH_VIDEO:
        return _without_video(folder, WITH_VIDEO[model_type])
    return AutoProcessor.from_pretrained(folder, backend="pil")


def plain_prompt(processor: ProcessorMixin, text: str) -> str:
    """Write one user's message of an image and a text in the checkpoint's chat template."""
    parts = [{"type": "image"}, {"type": "text", "text": text}]
    # Not SmolVLM's own method, which asks the absent video processor first.
    return ProcessorMixin.apply_chat_template(
        processor,
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=False,
    )


def plain_inputs(
    folder: Path, image: Image.Image | np.ndarray, text: str, *, begun: str = ""
) -> dict[str, Any]:
    """Give what the model is called with, for one image, one text, and the begun answer."""
    processor = plain_processor(folder)
    settings: dict[str, Any] = {"return_tensors": "pt"}
    if processor.chat_template is None:  # PaliGemma: its processor writes image, bos and line end
        prompt = "<image>" + text
    else:
        prompt = plain_prompt(processor, text) + begun
        bos = processor.tokenizer.bos_token
        settings["add_special_tokens"] = not (bos and prompt.startswith(bos))
    if hasattr(processor.image_processor, "crop_to_patches"):
        # InternVL's processor would tile whatever the folder says.
        settings["crop_to_patches"] = processor.image_processor.crop_to_patches
    with warnings.catch_warnings():
        # PaliGemma's processor makes arrays of tensors in a way that NumPy 2 warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        inputs = dict(processor(images=image, text=prompt, **settings))
    inputs.pop("labels", None)  # PaliGemma adds them, all to be ignored
    return inputs


def resize_unrounded(
    image: np.ndarray, size: tuple[int, int], resample: int, **_: Any
) -> np.ndarray:
    """Resize as transformers does by Pillow, each pass clipped to 8 bits' range but not rounded."""
    height, width = size

    def resized(plane: np.ndarray) -> np.ndarray:
        for shape in ((width, len(plane)), (width, height)):
            plane = np.asarray(Image.fromarray(plane).resize(shape, resample)).clip(0, 255)
        return plane

    return np.stack([resized(plane) for plane in image.astype(np.float32)])


def plain_pixel_values(folder: Path, image: Image.Image) -> torch.Tensor:
    """Give the image as its processor prepares it for the model."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor(images=image, return_tensors="pt")["pixel_values"]


def plain_log_odds(
    folder: Path,
    image: Image.Image | np.ndarray,
    text: str,
    yes: Sequence[int],
    no: Sequence[int],
    *,
    begun: str = "",
) -> float:
    """Give the log-odds of the next answer token being one of `yes` against one of `no`."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        inputs = plain_inputs(folder, image, text, begun=begun)
        logits = model(**inputs, use_cache=False).logits[0, -1]
    return float(logits[list(yes)].logsumexp(0) - logits[list(no)].logsumexp(0))


def plain_log_probability(
    folder: Path, image: Image.Image | np.ndarray, text: str, answer: str, n_pieces: int
) -> float:
    """Give the log-probability of a whole answer, whose pieces end one forward over it all."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        inputs = plain_inputs(folder, image, text, begun=answer)
        logits = model(**inputs, use_cache=False).logits[0]
    said = inputs["input_ids"][0, -n_pieces:]
    before = logits[-n_pieces - 1 : -1].double().log_softmax(-1)
    return float(before[torch.arange(n_pieces), said].sum())


def plain_reasoning(folder: Path, image: Image.Image, text: str, n_tokens: int) -> str:
    """Give what `generate` writes, and the tokenizer decodes."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = plain_inputs(folder, image, text)
    written = model.generate(**inputs, max_new_tokens=n_tokens, do_sample=False)
    new = written[0, inputs["input_ids"].shape[1] :]
    return AutoTokenizer.from_pretrained(folder).decode(new, skip_special_tokens=True)


def plain_similarity_log_odds(
    folder: Path, image: Image.Image, positive: str, negative: str
) -> float:
    """Give how much nearer the image is to one text than to the other, in logits.

    It is the log-odds of CLIP's softmax over the pair, and the difference of SigLIP's two logits.
    """
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    # SigLIP was trained on texts of one length and reads their padding.
    padding = "max_length" if model.config.model_type == "siglip" else True
    inputs = processor(
        images=image,
        text=[positive, negative],
        padding=padding,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = model(**inputs).logits_per_image[0]
    return float(logits[0] - logits[1])


def plain_class_logits(folder: Path, image: Image.Image) -> torch.Tensor:
    """Give a classifier's logits, in the order of its labels."""
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(pixel_values=plain_pixel_values(folder, image)).logits[0]

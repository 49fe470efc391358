"""Kinds of networks that medllm scores and explains; a kind is one file and one row here."""

from medllm.models.architectures.architecture import Architecture, Layout
from medllm.models.architectures.classifier import Classifier, HubClassifier
from medllm.models.architectures.contrastive import Clip, Contrastive, DualEncoder, Siglip
from medllm.models.architectures.gemma3 import Gemma3
from medllm.models.architectures.idefics3 import Idefics3
from medllm.models.architectures.internvl import InternVL
from medllm.models.architectures.llava import Llava
from medllm.models.architectures.llava_next import LlavaNext
from medllm.models.architectures.paligemma import PaliGemma
from medllm.models.architectures.qwen_vl import QwenVL
from medllm.models.architectures.vision_language import VisionLanguage

# By `model_type` of config.json.
ARCHITECTURES: dict[str, Architecture] = {
    "llava": Llava(),
    "llava_next": LlavaNext(),
    "paligemma": PaliGemma(),
    "gemma3": Gemma3(),
    "qwen2_vl": QwenVL(),
    "qwen2_5_vl": QwenVL(),
    "qwen3_vl": QwenVL(),
    "idefics3": Idefics3(),
    "smolvlm": Idefics3(),
    "internvl": InternVL(),
    "clip": Clip(),
    "siglip": Siglip(),
    "vision-text-dual-encoder": DualEncoder(),
}
# Of any `model_type` that has a classifier's head.
CLASSIFIER = HubClassifier()

__all__ = [
    "ARCHITECTURES",
    "CLASSIFIER",
    "Architecture",
    "Classifier",
    "Contrastive",
    "Layout",
    "Llava",
    "VisionLanguage",
]

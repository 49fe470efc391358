"""A network of transformers that lives in memory, with its processor, as a model."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import (
    ImageProcessingMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from medllm.errors import CheckpointError
from medllm.findings import finding
from medllm.models.architectures import Classifier, VisionLanguage
from medllm.models.asked_otherwise import Way, asked_otherwise
from medllm.models.card import IN_MEMORY
from medllm.models.foreign import Asked, architecture_of, foreign_card, read_asked
from medllm.models.hub import quiet_transformers, read_config
from medllm.models.in_memory import sha256_in_memory, sha256_of_asked
from medllm.models.model import Model
from medllm.models.prompts import read_texts
from medllm.models.reading import check_reading
from medllm.models.weights import keep_gradients


def wrap_pretrained(
    network: PreTrainedModel,
    processor: Any,
    *,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
    name: str | None = None,
    findings: Sequence[str] | None = None,
    prompts: Mapping[str, Any] | str | Path | None = None,
    paraphrases: bool = False,
    reasoning: int = 0,
    tiles: int = 1,
) -> Model:
    """Make a model of a network of transformers as it is in memory, such as just fine-tuned.

    It is read as its folder would be: preprocessing, chat template, answer words and labels are
    taken from its configuration and its processor, and what would be wrong in silence is refused.
    `save_model` keeps its calibration and how it is asked; the network itself is kept by you, and
    wrapped again for `load_model(folder, base=...)`. It is set to evaluation mode, and stays where
    it is, in its precision.

    Args:
        network: A vision-language model, a contrastive one, or a classifier of images; of adapters
            as of peft, with them merged.
        processor: What prepares its input: of a classifier its image processor, of others what
            `AutoProcessor` opens, with image processor and tokenizer.
        labels: Which labels of a classifier mean a finding, by the finding's key, where they do not
            say it themselves, such as `{"pneumonia": ["LABEL_1"]}`.
        name: What the model shall be called; the network's class when None.
        findings: Keys of the findings that it shall be asked; all that it can be when None.
        prompts: Texts that are to be otherwise than medllm's own, by key, or a file of them, as
            `medllm models configure --prompts` takes it; none when None.
        paraphrases: Whether each question is asked in several words, whose log-odds are averaged.
        reasoning: Longest text that the model may write before it answers, in tokens; 0 for none.
        tiles: Tiles along a side into which an image is cut, beside being shown whole.

    Returns:
        The model. Nothing is calibrated.

    Raises:
        CheckpointError: It is of a kind that medllm does not know, reads prompts otherwise than
            its own processor writes them, has no label that is a finding, cannot be asked so, or
            does not look at the image.
        LabelError: It cannot be asked for a finding.
        TypeError: It is no network of transformers, the processor does not serve it, or an
            argument is of another type.
        ValueError: `findings` is empty, a number is less than it can be, or `labels` stands in
            `prompts` too.

    Example:
        >>> from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
        >>> tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        >>> labels = {0: "normal", 1: "pneumonia"}
        >>> config = ViTConfig(**tiny, intermediate_size=32, image_size=32, id2label=labels)
        >>> processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
        >>> wrap_pretrained(ViTForImageClassification(config), processor).card.findings
        ('pneumonia',)
    """
    kind = _class_of(network)
    name = name or type(network).__name__
    way = Way(
        findings=findings,
        own=_own_texts(prompts, labels),
        source=str(prompts) if isinstance(prompts, str | Path) else "wrap_pretrained",
        paraphrases=paraphrases,
        reasoning=reasoning,
        tiles=tiles,
    )
    network.eval()
    keep_gradients(network)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        config = copy.deepcopy(network.config)
        config.architectures = [kind.__name__]
        (folder / "config.json").write_text(config.to_json_string(), encoding="utf-8")
        try:
            asked = _read(folder, network, processor, way)
            card = foreign_card(name, IN_MEMORY, asked, base=IN_MEMORY, sha256="")
            plain = Model(network, asked.tokenizer, card, architecture=asked.architecture)
            model = asked_otherwise(plain, folder, way)
        except CheckpointError as error:
            said = str(error).replace(made, f"'{name}'")
            raise CheckpointError(said, code=error.code) from error
    base_sha256 = sha256_in_memory(network, model.card.preprocessing, model.tokenizer)
    card = dataclasses.replace(model.card, base_sha256=base_sha256)
    model = dataclasses.replace(model, card=card, sha256=sha256_of_asked(card))
    check_reading(model)
    return model


def _own_texts(
    prompts: Mapping[str, Any] | str | Path | None, labels: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Give own texts, with what labels mean among them."""
    read = read_texts(Path(prompts)) if isinstance(prompts, str | Path) else prompts
    if read is not None and not isinstance(read, Mapping):
        raise TypeError(
            f"prompts is a {type(prompts).__name__}; wanted is a table of texts, such as "
            '{"wording": "{question} Answer with yes or no."}, or a file of them.'
        )
    own = dict(read or {})
    if labels and "labels" in own:
        raise ValueError("labels is given, and stands in prompts too; leave one of them out.")
    told = {finding(key).key: named for key, named in labels.items()}
    return {**own, "labels": told} if told else own


def _class_of(network: Any) -> type:
    """Find by which class of transformers a network was made; a subclass may be the user's own."""
    if type(network).__module__.startswith("peft."):
        raise TypeError(
            f"a {type(network).__name__} holds adapters of peft beside the network; fold them in "
            "first: network = network.merge_and_unload()."
        )
    if not isinstance(network, PreTrainedModel):
        raise TypeError(
            f"a {type(network).__name__} is no network of transformers. medllm.wrap(network, "
            "outputs, preprocessing, output=...) takes any network of PyTorch, and "
            "medllm.load_model a folder or a name on the hub."
        )
    return next(one for one in type(network).__mro__ if one.__module__.startswith("transformers."))


def _read(folder: Path, network: PreTrainedModel, processor: Any, way: Way) -> Asked:
    """Read a network as it would be read from a folder of its own, but for its weights."""
    config = read_config(folder)
    kind = architecture_of(config)
    if isinstance(kind, VisionLanguage) and network.get_output_embeddings() is None:
        raise CheckpointError(
            f"{folder} is a {type(network).__name__}, which has no head that answers in words; "
            "wrap the network that AutoModelForImageTextToText opens."
        )
    if kind is not None:
        _write_processor(processor, folder, reads_words=not isinstance(kind, Classifier))
    try:
        return read_asked(folder, config, way.meaning(config.model_type))
    except CheckpointError as error:
        if error.code != "no-finding":
            raise
        raise CheckpointError(
            f"none of the labels of {folder} names a finding that medllm knows: "
            f"{', '.join(map(str, config.id2label.values()))}. Say which means one: "
            f'labels={{"pneumonia": ["{config.id2label[0]}"]}}.',
            code=error.code,
        ) from error


def _write_processor(processor: Any, folder: Path, *, reads_words: bool) -> None:
    """Write what is read of a processor; one of videos beside it is not."""
    images = getattr(processor, "image_processor", processor)
    words: Any = getattr(processor, "tokenizer", None)
    if not isinstance(images, ImageProcessingMixin):
        raise TypeError(
            f"processor is a {type(processor).__name__} without an image processor; pass what "
            f"{'AutoProcessor' if reads_words else 'AutoImageProcessor'}.from_pretrained opens."
        )
    if reads_words and not isinstance(words, PreTrainedTokenizerBase):
        raise TypeError(
            f"processor is a {type(processor).__name__} without a tokenizer; pass what "
            "AutoProcessor.from_pretrained opens."
        )
    with quiet_transformers():
        images.save_pretrained(folder)
        if reads_words:
            words.save_pretrained(folder)
    template = getattr(processor, "chat_template", None)
    if isinstance(template, str):
        text = json.dumps({"chat_template": template})
        (folder / "chat_template.json").write_text(text, encoding="utf-8")

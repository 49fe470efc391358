"""The same image asked otherwise, and the same question of an image that shows nothing."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from medllm.data import Preprocessing
from medllm.data.blur import coarse
from medllm.datasets import ImageRecord
from medllm.findings import FINDINGS
from medllm.models import Model
from medllm.train.questions import WORDINGS

BLURRED = "blurred"
# Of these the first that the model does not answer for: nobody confuses it with an opacity.
_CONTROLS = ("fracture", "hernia", "support_devices")
# Images that are probed, and of those with a finding; the interval of an AUROC of .8 is then
# about .1 wide.
_PROBED, _PROBED_POSITIVES = 400, 150


@dataclass(frozen=True, eq=False)
class Probe:
    """One change of what the model is asked.

    Attributes:
        name: `blurred`, or the question with its findings' names left open.
        kind: What is changed.
        model: The model with the questions of this probe.
    """

    name: str
    kind: Literal["blurred", "reworded", "another finding"]
    model: Model


def probes_of(model: Model, findings: Sequence[str]) -> tuple[Probe, ...]:
    """Make the probes that a model can answer.

    A wording whose words the model's tokenizer does not know is left out.

    Args:
        model: The model.
        findings: Keys that are asked.

    Returns:
        The probes.
    """
    asked = _asking(model, {key: model.questions([key])[0].text for key in findings})
    probes = [Probe(BLURRED, "blurred", asked)]
    if not model.architecture.reads_questions:
        return tuple(probes)
    for wording in WORDINGS:
        texts = {key: wording.format(name=FINDINGS[key].name) for key in findings}
        own = {question.text for question in asked.card.questions}
        if own.isdisjoint(texts.values()) and _knows(model, texts.values()):
            probes.append(Probe(wording, "reworded", _asking(model, texts)))
    for key in _CONTROLS:
        text = FINDINGS[key].question
        if key not in model.card.findings and _knows(model, [text]):
            texts = dict.fromkeys(findings, text)
            probes.append(Probe(text, "another finding", _asking(model, texts)))
            break
    return tuple(probes)


def _asking(model: Model, texts: Mapping[str, str]) -> Model:
    questions = tuple(
        dataclasses.replace(model.questions([key])[0], text=text) for key, text in texts.items()
    )
    return dataclasses.replace(model, card=dataclasses.replace(model.card, questions=questions))


def _knows(model: Model, texts: Iterable[str]) -> bool:
    unknown = model.tokenizer.unk_token_id
    return unknown is None or not any(
        unknown in model.tokenizer(text)["input_ids"] for text in texts
    )


def probe(
    probes: Sequence[Probe],
    features: Float[torch.Tensor, "batch patches width"],
    display: Float[torch.Tensor, "batch size size"],
    preprocessing: Preprocessing,
) -> dict[str, Float[torch.Tensor, "batch findings"]]:
    """Ask the probes of some images.

    Args:
        probes: The probes.
        features: The images' patch tokens.
        display: The images before normalization.
        preprocessing: For the blurred ones.

    Returns:
        Log-odds by the probe's name.
    """
    answers = {}
    for one in probes:
        tokens = features
        if one.kind == "blurred":
            tokens = one.model.image_features(preprocessing.pixel_values(coarse(display)))
        answers[one.name] = one.model.log_odds_from_features(tokens)
    return answers


def sampler(
    records: Sequence[ImageRecord], findings: Sequence[str]
) -> Callable[[ImageRecord], bool]:
    """Choose the images that are probed: some of all, and more of those with a rare finding.

    A ranking does not depend on how frequent a finding is, but its interval does.

    Args:
        records: All images.
        findings: Keys.

    Returns:
        Whether an image is probed; a hash of its name decides, the same on every machine.
    """
    positive = Counter(
        finding for record in records for finding in findings if record.labels.get(finding) == 1
    )

    def is_probed(record: ImageRecord) -> bool:
        digest = hashlib.sha256(f"{record.patient_id}/{record.name}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        shares = [
            _PROBED_POSITIVES / positive[finding]
            for finding in findings
            if record.labels.get(finding) == 1
        ]
        return place < max([_PROBED / max(1, len(records)), *shares])

    return is_probed

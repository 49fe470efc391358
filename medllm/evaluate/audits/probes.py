"""The same image asked otherwise, and the same question of a changed image or in a context."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float

from medllm.data import Preprocessing
from medllm.data.blur import coarse
from medllm.datasets import ImageRecord
from medllm.datasets.splits import place_of
from medllm.errors import CheckpointError
from medllm.evaluate.audits.hiding import LUNGS_HIDDEN, THORAX_HIDDEN, hide
from medllm.findings import FINDINGS, IN_LUNGS
from medllm.models import Model, in_context
from medllm.train.questions import WORDINGS

BLURRED = "blurred"
INDICATED = "own indication"
MISTAKEN = "another patient's indication"
INDICATION_ALONE = "own indication of a blank image"
# Of these the first that the model does not answer for: nobody confuses it with an opacity.
_CONTROLS = ("fracture", "hernia", "support_devices")
# Images that are probed, and of those with a finding; the interval of an AUROC of .8 is then
# about .1 wide.
_PROBED, _PROBED_POSITIVES = 400, 150
_Key = tuple[Path, str]


@dataclass(frozen=True, eq=False)
class Probe:
    """One change of what the model is asked.

    Attributes:
        name: `blurred`, what is hidden, whose indication is told, or the question with its
            findings' names left open.
        kind: What is changed.
        model: The model with the questions of this probe.
        told: What the model is told of an image's patient, by `_key`; nothing is asked of other
            images where `kind` is `indication`.
    """

    name: str
    kind: Literal["blurred", "hidden", "reworded", "another finding", "indication"]
    model: Model
    told: Mapping[_Key, str] = field(default_factory=dict)


def probes_of(
    model: Model, findings: Sequence[str], records: Sequence[ImageRecord] = ()
) -> tuple[Probe, ...]:
    """Make the probes that a model can answer.

    A wording whose words the model's tokenizer does not know is left out.

    Args:
        model: The model.
        findings: Keys that are asked.
        records: Images that are probed, for their indications.

    Returns:
        The probes.
    """
    asked = _asking(model, {key: model.questions([key])[0].text for key in findings})
    probes = [Probe(BLURRED, "blurred", asked)]
    if not IN_LUNGS.isdisjoint(findings):
        probes += [Probe(name, "hidden", asked) for name in (LUNGS_HIDDEN, THORAX_HIDDEN)]
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
    if model.card.context_template:
        told = _indications(records)
        probes += [Probe(name, "indication", asked, one) for name, one in told.items()]
    return tuple(probes)


def _indications(records: Sequence[ImageRecord]) -> dict[str, dict[_Key, str]]:
    """Give each image its own indication and another patient's; nothing where all are alike."""
    known = sorted((one for one in records if one.indication), key=_place)
    own, others = {}, {}
    for at, record in enumerate(known):
        following = (known[(at + step) % len(known)] for step in range(1, len(known)))
        for other in following:
            is_another = other.patient_id != record.patient_id
            if is_another and other.indication != record.indication:
                own[_key(record)], others[_key(record)] = record.indication, other.indication
                break
    return {INDICATED: own, MISTAKEN: others} if own else {}


def _key(record: ImageRecord) -> _Key:
    return record.path, record.member


def _place(record: ImageRecord) -> float:
    return place_of(f"{record.patient_id}/{record.name}")


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
    records: Sequence[ImageRecord],
    features: Float[torch.Tensor, "batch patches width"],
    display: Float[torch.Tensor, "batch size size"],
    shapes: Sequence[tuple[int, int]],
    preprocessing: Preprocessing,
) -> dict[str, Float[torch.Tensor, "batch findings"]]:
    """Ask the probes of some images.

    Args:
        probes: The probes.
        records: The images' records.
        features: The images' patch tokens.
        display: The images before normalization.
        shapes: Rows and columns of the source images.
        preprocessing: For the changed ones.

    Returns:
        Log-odds by the probe's name; NaN for an image that has no indication, or one that the
        model cannot be told, and for one whose lungs are not found where they are to be hidden.
    """
    answers: dict[str, torch.Tensor] = {}
    hidden: list[dict[str, torch.Tensor]] = []
    if any(one.kind == "hidden" for one in probes):
        hidden = [hide(*each, preprocessing) for each in zip(display.cpu(), shapes, strict=True)]
    for one in probes:
        tokens = features
        if one.kind == "blurred":
            tokens = one.model.image_features(preprocessing.pixel_values(coarse(display)))
        if one.kind == "indication":
            shown = {one.name: features}
            if one.name == INDICATED:  # told once, with the image and with a blank one
                grey = one.model.image_features(blank(preprocessing))
                shown[INDICATION_ALONE] = grey.expand_as(features)
            pairs = zip(records, torch.stack([*shown.values()], dim=1), strict=True)
            told = torch.stack([_told(one, record, own) for record, own in pairs], dim=1)
            answers |= dict(zip(shown, told, strict=True))
        elif one.kind == "hidden":
            copies = [copy.get(one.name) for copy in hidden]
            answers[one.name] = _answers_without(one.model, copies, preprocessing)
        else:
            answers[one.name] = one.model.log_odds_from_features(tokens)
    return answers


def _answers_without(
    model: Model,
    copies: Sequence[Float[torch.Tensor, "size size"] | None],
    preprocessing: Preprocessing,
) -> Float[torch.Tensor, "batch findings"]:
    answers = torch.full((len(copies), len(model.card.questions)), float("nan"))
    if shown := [copy for copy in copies if copy is not None]:
        tokens = model.image_features(preprocessing.pixel_values(torch.stack(shown)))
        at = torch.tensor([copy is not None for copy in copies])
        answers[at] = model.log_odds_from_features(tokens).cpu().to(answers.dtype)
    return answers


def blank(preprocessing: Preprocessing) -> Float[torch.Tensor, "1 channels size size"]:
    """Make a blank image: grey throughout.

    Args:
        preprocessing: The model's contract.

    Returns:
        The model's input.
    """
    return preprocessing.pixel_values(torch.full((1, *[preprocessing.size] * 2), 0.5))


def _told(
    one: Probe, record: ImageRecord, tokens: Float[torch.Tensor, "shown patches width"]
) -> Float[torch.Tensor, "shown findings"]:
    if text := one.told.get(_key(record)):
        with contextlib.suppress(CheckpointError):  # too long, or with what prompts are made of
            return in_context(one.model, text).log_odds_from_features(tokens)
    size = len(tokens), len(one.model.card.questions)
    return torch.full(size, float("nan"), device=tokens.device)


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
        place = _place(record)
        shares = [
            _PROBED_POSITIVES / positive[finding]
            for finding in findings
            if record.labels.get(finding) == 1
        ]
        return place < max([_PROBED / max(1, len(records)), *shares])

    return is_probed

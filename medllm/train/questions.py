"""What is asked while training: findings in several wordings, and auxiliary closed questions.

A network that is asked one question in one wording can learn to answer without reading it. The
auxiliary questions have other answers on the same image, so that it has to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medllm.findings import FINDINGS, IN_LUNGS
from medllm.train.image_set import ADULT_YEARS, CELLS, Cells, ImageSet, years_of

WORDINGS = (
    "Does this radiograph show {name}?",
    "Is {name} present?",
    "Can {name} be seen?",
)
# Share of a finding's area that must lie on one side, or in one half, to answer for it.
_ALL_OF_IT = 0.9


@dataclass(frozen=True)
class AskedQuestion:
    """A closed question of the training.

    Attributes:
        key: Key of the finding, or of the auxiliary question.
        wordings: The question in each wording; the first is the one that a checkpoint asks.
    """

    key: str
    wordings: tuple[str, ...]


_AUXILIARY = (
    AskedQuestion("view_ap", ("Is this an anteroposterior view?", "Is the view AP?")),
    AskedQuestion("child", ("Is the patient a child?", "Is this radiograph of a child?")),
    AskedQuestion("female", ("Is the patient female?", "Is this radiograph of a woman?")),
    AskedQuestion(
        "opacity_right", ("Is there a lung opacity on the right?", "Is the right lung opaque?")
    ),
    AskedQuestion(
        "opacity_left", ("Is there a lung opacity on the left?", "Is the left lung opaque?")
    ),
    AskedQuestion(
        "opacity_upper", ("Is there a lung opacity in the upper half?", "Is the upper half opaque?")
    ),
    AskedQuestion(
        "opacity_lower", ("Is there a lung opacity in the lower half?", "Is the lower half opaque?")
    ),
)


def questions_of(findings: Sequence[str], *, auxiliary: bool) -> tuple[AskedQuestion, ...]:
    """Choose what is asked.

    Args:
        findings: Keys of the findings to train.
        auxiliary: View, age group, sex, and side and half of an opacity too.

    Returns:
        The questions: the findings in their order, then the auxiliary ones.
    """
    asked = tuple(
        AskedQuestion(
            key,
            (
                FINDINGS[key].question,
                *(wording.format(name=FINDINGS[key].name) for wording in WORDINGS),
            ),
        )
        for key in findings
    )
    return (*asked, *_AUXILIARY) if auxiliary else asked


def lies_in_lungs(key: str) -> bool:
    """Say whether a question is answered by what the lungs show.

    Args:
        key: Key of a finding, or of an auxiliary question.

    Returns:
        Whether it is of a finding of lungs or pleura, or of the place of an opacity.
    """
    return key in IN_LUNGS or key.startswith("opacity_")


def with_auxiliary_labels(images: ImageSet) -> ImageSet:
    """Add the answers of the auxiliary questions, where they are known.

    Args:
        images: Images with attributes and regions. Kermany's patients are all children; it
            is the one data set whose age group is known without a column.

    Returns:
        The same images with more labels.
    """
    labels = [
        {**row, **_demographic(images.source, attributes), **_located(row, regions)}
        for row, attributes, regions in zip(
            images.labels, images.attributes, images.regions, strict=True
        )
    ]
    return dataclasses.replace(images, labels=labels)


def _demographic(source: str, attributes: Mapping[str, str]) -> dict[str, int]:
    answers = {}
    if attributes.get("view_position") in ("AP", "PA"):
        answers["view_ap"] = int(attributes["view_position"] == "AP")
    if attributes.get("sex") in ("F", "M"):
        answers["female"] = int(attributes["sex"] == "F")
    years = years_of(attributes)
    if source == "kermany":
        answers["child"] = 1
    elif years is not None:
        answers["child"] = int(years < ADULT_YEARS)
    return answers


def _located(labels: Mapping[str, float], regions: Mapping[str, Cells]) -> dict[str, int]:
    """Answer for side and half: of a negative always no, of a positive where its place is known.

    The patient's right is the image's left. What crosses the middle is on both sides.
    """
    keys = ("opacity_right", "opacity_left", "opacity_upper", "opacity_lower")
    if labels.get("lung_opacity") == 0:
        return dict.fromkeys(keys, 0)
    if "lung_opacity" not in regions:
        return {}
    region, middle = regions["lung_opacity"].float(), CELLS // 2
    total = float(region.sum())
    if total == 0:
        return {}
    parts = (region[:, :middle], region[:, middle:], region[:middle], region[middle:])
    shares = [float(part.sum()) / total for part in parts]
    return {key: int(share > 1 - _ALL_OF_IT) for key, share in zip(keys, shares, strict=True)}

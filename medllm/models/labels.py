"""Labels of others' classifiers, matched with medllm's findings by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from medllm.errors import CheckpointError, did_you_mean
from medllm.findings import FINDINGS
from medllm.models.card import UNFITTED, Question

# What data sets and models call findings beside medllm's names, keys and codes.
_ALIASES = {
    "airspace_opacity": "lung_opacity",
    "pulmonary_opacity": "lung_opacity",
    "bacterial_pneumonia": "pneumonia",
    "viral_pneumonia": "pneumonia",
    "oedema": "edema",
    "pulmonary_oedema": "edema",
    "lung_edema": "edema",
    "pulmonary_consolidation": "consolidation",
    "pulmonary_mass": "mass",
    "pulmonary_nodule": "nodule",
    "nodule_mass": "nodule_or_mass",
    "cardiac_enlargement": "cardiomegaly",
    "enlarged_heart": "cardiomegaly",
    "bone_fracture": "fracture",
    "medical_device": "support_devices",
    "pulmonary_tuberculosis": "tuberculosis",
    "tb": "tuberculosis",
    "covid": "covid_19",
    "covid19": "covid_19",
    "ild": "interstitial_lung_disease",
}
# Endings of plurals and what the singular has instead; the first that fits counts.
_PLURALS = (("ies", "y"), ("sses", "ss"), ("ses", "sis"), ("ss", "ss"), ("is", "is"), ("us", "us"))


def finding_of(label: str) -> str | None:
    """Find what a label means.

    Case, spaces, underscores and plurals do not count.

    Args:
        label: A classifier's name of an output.

    Returns:
        The finding's key; None where the label means none that medllm knows.

    Example:
        >>> finding_of("Pleural_Effusions"), finding_of("COVID-19"), finding_of("No Finding")
        ('effusion', 'covid_19', None)
    """
    return _known().get(_plain(label))


@cache
def _known() -> dict[str, str]:
    names = {_plain(alias): key for alias, key in _ALIASES.items()}
    for key, one in FINDINGS.items():
        code = () if one.code is None else (one.code.meaning,)
        names |= {_plain(name): key for name in (*code, one.bare_name, key)}
    return names


def _plain(label: str) -> str:
    words = re.sub(r"[\W_]+", " ", label.lower()).strip()
    return " ".join(_singular(word) for word in words.split())


def _singular(word: str) -> str:
    for ending, singular in _PLURALS:
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word.removesuffix("s")


@dataclass(frozen=True)
class Meaning:
    """What the labels of a classifier mean beside what they are called.

    Attributes:
        labels: Those that mean a finding, by its key, whatever they are called.
        asked: Keys of the findings that are wanted; every one that a label means when None.
        independent: Whether each label is for itself; as the configuration says when None.
    """

    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: Collection[str] | None = None
    independent: bool | None = None


# Of a classifier whose labels are called what they mean.
BY_NAME = Meaning()


def label_questions(
    labels: Sequence[str], *, chooses_one: bool, source: str, meaning: Meaning = BY_NAME
) -> tuple[Question, ...]:
    """Make a question of each finding that a label means.

    Args:
        labels: A name an output.
        chooses_one: Whether the classifier chooses one of its labels; else each is for itself.
        source: What the classifier is, for messages.
        meaning: What they mean beside what they are called.

    Returns:
        The questions, in medllm's order of findings.

    Raises:
        CheckpointError: No label means a finding, a label that is told is none of the classifier's
            or means two findings, or the labels of a finding cannot be told apart from others.
    """
    taken = _checked(meaning.labels, labels, source)
    meant: dict[str, Sequence[str]] = dict(meaning.labels)
    for label in dict.fromkeys(labels):
        if label not in taken and (key := finding_of(label)) and key not in meaning.labels:
            meant[key] = [*meant.get(key, ()), label]
    if meaning.asked is not None:
        # What is not there at all is told when it is asked for.
        meant = {key: meant[key] for key in meant if key in meaning.asked} or meant
    if not meant:
        raise CheckpointError(
            f"none of the {len(labels)} labels of {source}, such as {_some(labels, 3)}, names a "
            "finding that medllm knows. If one means a finding all the same, say so in a file, "
            f"'labels: {{pneumonia: [\"{labels[-1]}\"]}}', and run medllm models configure with "
            "--prompts FILE.",
            code="no-finding",
        )
    return tuple(
        label_question(key, meant[key], labels, chooses_one=chooses_one, source=source)
        for key in FINDINGS
        if key in meant
    )


def _checked(
    told: Mapping[str, Sequence[str]], labels: Sequence[str], source: str
) -> dict[str, str]:
    """Give the finding of each label that was told; refuse one that is not there, or of two."""
    taken: dict[str, str] = {}
    for key, named in told.items():
        for label in named:
            if label not in labels:
                raise CheckpointError(
                    f"'{label}', said to mean {key}, is none of the {len(labels)} labels of "
                    f"{source}: {_some(labels, 20)}.{did_you_mean(label, labels)}",
                    code="no-label",
                )
            if taken.setdefault(label, key) != key:
                raise CheckpointError(
                    f"'{label}' of {source} is said to mean {taken[label]} and {key}; one label is "
                    "one finding.",
                    code="no-label",
                )
    return taken


def label_question(
    finding: str, yes: Sequence[str], labels: Sequence[str], *, chooses_one: bool, source: str
) -> Question:
    """Make the question of one finding.

    Args:
        finding: Its key.
        yes: Labels that mean it.
        labels: All labels.
        chooses_one: Whether the classifier chooses one of its labels; else each is for itself.
        source: What the classifier is, for messages.

    Returns:
        The question, not calibrated. Its `no` is empty where each label is for itself.

    Raises:
        CheckpointError: Several independent labels mean the finding, or all that are chosen among.
    """
    no = tuple(dict.fromkeys(label for label in labels if label not in yes))
    if chooses_one and not no:
        raise CheckpointError(
            f"all labels of {source} mean {finding} ({', '.join(yes)}), so that choosing one says "
            "nothing; wanted is a label without it."
        )
    if not chooses_one and len(yes) > 1:
        raise CheckpointError(
            f"{len(yes)} labels of {source} mean {finding}, each for itself: {', '.join(yes)}. "
            f"Choose one: in Python where it is wrapped, else in a file, 'labels: {{{finding}: "
            f'["{yes[0]}"]}}\', and run medllm models configure with --prompts FILE.'
        )
    text = FINDINGS[finding].question
    return Question(finding, text, tuple(yes), no if chooses_one else (), UNFITTED)


def _some(labels: Sequence[str], most: int) -> str:
    return ", ".join(f"'{label}'" for label in labels[:most])

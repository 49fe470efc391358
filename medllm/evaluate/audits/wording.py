"""How the audits are to be read, in sentences; verdicts only where the intervals carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medllm.evaluate.audits.document import (
    Audits,
    ImageUseAudit,
    IndicationAudit,
    LabelNoiseAudit,
    LungsAudit,
    PromptAudit,
    ShortcutAudit,
)
from medllm.evaluate.section import Interval

_CHANCE = 0.5
# Above it agreement is called substantial (Landis and Koch, Biometrics 1977).
_AGREED = 0.6
AuditRow = (
    ImageUseAudit | LungsAudit | ShortcutAudit | PromptAudit | IndicationAudit | LabelNoiseAudit
)


@dataclass(frozen=True)
class Reading:
    """How one audit is to be read.

    Attributes:
        title: Heading.
        read: What the table shows and how the interval was made.
        alarming: What would be alarming.
    """

    title: str
    read: str
    alarming: str


READINGS: dict[str, Reading] = {
    "image_use": Reading(
        "Is the image used?",
        "AUROC on a sample with the image as it is and blurred to 4 by 4 pixels, and the "
        "difference on the same images. The mean log-odds of the images stand beside those of a "
        "blank one.",
        "an AUROC with the blurred image close to the real one, so that coarse brightness does "
        "the ranking.",
    ),
    "lungs": Reading(
        "Do the lungs tell the label?",
        "AUROC on a sample with the image as it is, with both lungs hidden, and with the whole "
        "thorax hidden, so that only its surroundings are left; for findings of the lungs and the "
        "pleura, where the lungs were found. What is hidden is flat, in the mean shade of what is "
        "left; the outline of the lungs remains.",
        "a ranking that is left when the lungs are hidden: then much of it comes from how the "
        "patients were imaged, who they were, or what else goes with the finding. Nothing of such "
        "a finding lies outside the thorax.",
    ),
    "shortcuts": Reading(
        "Do acquisition facts tell the label?",
        "AUROC of a logistic regression on the facts alone, cross-fitted by patient, beside the "
        "model's on the same images, and the model's minus theirs. .5 is chance.",
        "facts alone well above .5: then the model may owe its ranking to how the images were "
        "taken, not to what they show.",
    ),
    "prompts": Reading(
        "Does the question matter?",
        "AUROC of the finding's labels by the answer to another question on the same images, and "
        "its difference from that of the model's own question. A reworded question should change "
        "nothing; a question for another finding should rank worse.",
        "an answer to another finding's question that ranks as well as the own one, unless "
        "the two occur together, or a rewording that changes the ranking or many calls.",
    ),
    "indications": Reading(
        "Does the answer follow the request?",
        "AUROC on a sample when the model is told what the request said of the patient, when it "
        "is told what another patient's said, and when it is told the right one and shown a blank "
        "image; each beside the answers of the image alone.",
        "an indication that ranks as well without the image as with it, or another patient's "
        "that makes the ranking no better than chance: then the text answers, not the image. That "
        "another patient's ranks worse is what reading a request comes to.",
    ),
    "label_noise": Reading(
        "Do two sources of labels agree?",
        "Images by the label that is evaluated and by a second source, Cohen's kappa (1 is "
        "agreement, 0 chance), and the model's AUROC by either, with the difference on the same "
        "images.",
        f"a kappa below {_AGREED:g}, or an AUROC that hangs on the source: then the figures say "
        "as much about the labels as about the model.",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What follows from the intervals.

    Attributes:
        tone: `clear` where nothing speaks against the figures, `caution` where the intervals
            leave it open or something small does, `alarm` where they owe to something else.
        words: The sentence.
    """

    tone: Literal["clear", "caution", "alarm"]
    words: str


def verdict(row: AuditRow) -> Verdict | None:
    """Say what follows from the intervals of an audit.

    Args:
        row: The audit of a finding.

    Returns:
        The verdict; None where an interval that it needs is not defined.
    """
    match row:
        case ImageUseAudit():
            return _image_use(row)
        case LungsAudit():
            return _lungs(row)
        case ShortcutAudit():
            return _shortcut(row)
        case PromptAudit():
            return _prompt(row)
        case IndicationAudit():
            return _indication(row)
        case LabelNoiseAudit():
            return _label_noise(row)


def alarms(audits: Audits) -> dict[str, list[str]]:
    """List what is alarming.

    Args:
        audits: All audits of an evaluation.

    Returns:
        Keys of the findings by the heading of the audit that alarms.
    """
    found: dict[str, list[str]] = {}
    for kind, reading in READINGS.items():
        said = [(row.finding, verdict(row)) for row in getattr(audits, kind)]
        alarmed = [key for key, one in said if one is not None and one.tone == "alarm"]
        if alarmed:
            found[reading.title] = list(dict.fromkeys(alarmed))
    return found


def _image_use(row: ImageUseAudit) -> Verdict | None:
    real, blurred, difference = _ends(row.real), _ends(row.blurred), _ends(row.auroc_difference)
    if real is None or blurred is None or difference is None:
        return None
    if real[0] <= _CHANCE:
        return Verdict("caution", "Not shown to rank better than chance, even with the image.")
    if difference[0] > 0:
        return Verdict("clear", "Ranks better with the image than blurred: its detail is used.")
    if blurred[0] > _CHANCE:
        return Verdict("alarm", "The blurred image ranks as well, as far as the interval tells.")
    return Verdict("caution", "Not shown to rank better with the image than blurred.")


def _lungs(row: LungsAudit) -> Verdict | None:
    real, hidden, outside = _ends(row.auroc), _ends(row.auroc_hidden), _ends(row.auroc_outside)
    difference = _ends(row.auroc_difference)
    if real is None or hidden is None or outside is None or difference is None:
        return None
    if real[0] <= _CHANCE:
        return Verdict("caution", "Not shown to rank better than chance, even with the lungs.")
    if difference[0] <= 0:
        return Verdict("alarm", "Ranks as well without the lungs, as far as the interval tells.")
    if outside[0] > _CHANCE:
        return Verdict("alarm", "What surrounds the thorax is enough to rank better than chance.")
    if hidden[0] > _CHANCE:
        return Verdict("caution", "Ranks worse without the lungs, yet better than chance.")
    return Verdict("clear", "Not shown to rank better than chance without the lungs.")


def _shortcut(row: ShortcutAudit) -> Verdict | None:
    facts, difference = _ends(row.auroc), _ends(row.auroc_difference)
    if facts is None or difference is None:
        return None
    if facts[0] <= _CHANCE:
        return Verdict("clear", "Not shown to tell the label.")
    if difference[0] > 0:
        return Verdict("caution", "Tell something of the label, less than the model does.")
    return Verdict("alarm", "Tell the label as well as the model, as far as the interval tells.")


def _prompt(row: PromptAudit) -> Verdict | None:
    difference, area = _ends(row.auroc_difference), _ends(row.auroc)
    if difference is None or area is None:
        return None
    if row.kind == "reworded":
        return _rewording(*difference)
    if difference[1] < 0:
        return Verdict("clear", "Ranks worse than the model's own question, as it should.")
    if difference[0] > 0:
        return Verdict("alarm", "Ranks better than the model's own question.")
    if area[0] > _CHANCE:
        return Verdict("alarm", "Ranks as well as the model's own, as far as the interval tells.")
    return Verdict("caution", "Not shown to rank worse than the model's own question.")


def _indication(row: IndicationAudit) -> Verdict | None:
    seen, told, mistaken = _ends(row.auroc), _ends(row.auroc_told), _ends(row.auroc_mistaken)
    rise, drop = _ends(row.told_difference), _ends(row.mistaken_difference)
    image = _ends(row.image_difference)
    if not (seen and told and mistaken and rise and drop and image):
        return None
    if rise[1] < 0:
        return Verdict("alarm", "Ranks worse when it is told what the request said.")
    if told[0] <= _CHANCE:
        return Verdict("caution", "Not shown to rank better than chance when it is told.")
    if image[0] <= 0:
        return Verdict("alarm", "The indication alone ranks as well, as far as the interval tells.")
    if seen[0] > _CHANCE and mistaken[0] <= _CHANCE:
        return Verdict("alarm", "With another patient's indication no ranking is left.")
    if drop[1] < 0:
        return Verdict("caution", "Follows the text: another patient's indication ranks worse.")
    return Verdict("clear", "Another patient's indication is not shown to change the ranking.")


def _label_noise(row: LabelNoiseAudit) -> Verdict | None:
    difference = _ends(row.auroc_difference)
    if difference is None:
        return None
    if difference[0] > 0 or difference[1] < 0:
        return Verdict("alarm", "The AUROC hangs on the source of the labels.")
    if row.kappa is None or row.kappa < _AGREED:
        return Verdict("caution", "No difference of the AUROC is shown, but the sources disagree.")
    return Verdict("clear", "No difference of the AUROC is shown.")


def _rewording(low: float, high: float) -> Verdict:
    if high < 0:
        return Verdict("alarm", "Ranks worse when reworded.")
    if low > 0:
        return Verdict("caution", "Ranks better when reworded.")
    return Verdict("clear", "No change of the ranking is shown.")


def _ends(interval: Interval) -> tuple[float, float] | None:
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high

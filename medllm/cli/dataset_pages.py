"""What `medllm datasets` prints."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from medllm.datasets.dataset import DataSet
    from medllm.datasets.leakage import Leakage, Shared
    from medllm.datasets.verify import Verification

_KINDS = {
    "patients": "patients",
    "identical": "images, identical to the byte",
    "alike": "images that look alike",
    "names": "equal file names, a hint only",
}
_RELATIONS = {
    "sets": "between sets",
    "parts": "between the parts of a set",
    "patients": "under the names of two patients",
}


def number(count: int) -> str:
    """Write a count with its thousands set off."""
    return f"{count:,}"


def _row(name: str, text: str) -> str:
    return f"  {name:<13}{text}"


def _counts(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{name}: {number(count)}" for name, count in counts.items())


def facts_of(dataset: DataSet) -> dict[str, Any]:
    """Gather what is known of a data set, without a copy of it."""
    from medllm.datasets.policy import Blank, Readers, Uncertain

    choices = {"uncertain": Uncertain, "readers": Readers, "blank": Blank}
    policy = dataclasses.asdict(dataset.policy)
    return {
        "name": dataset.name,
        "title": dataset.title,
        "terms": dataset.terms,
        "citation": dataset.citation,
        "policy": {
            name: {"default": policy[name], "choices": list(get_args(words))}
            for name, words in choices.items()
            if policy[name]
        },
        "published": dataclasses.asdict(dataset.published) if dataset.published else None,
        "descends": dict(dataset.descends),
        "card": None if dataset.name == "csv" else f"datasets/{dataset.name}.md",
    }


def facts_page(facts: Mapping[str, Any]) -> Iterator[str]:
    """Write these facts as lines."""
    yield f"{facts['name']}: {facts['title']}"
    yield _row("terms", facts["terms"])
    if facts["citation"]:
        yield _row("cite", facts["citation"])
    for name, policy in facts["policy"].items():
        others = ", ".join(word for word in policy["choices"] if word != policy["default"])
        yield _row("policy", f"{name}: {policy['default']}, or {others}")
    if not facts["policy"]:
        yield _row("policy", "the labels leave no choice")
    published = facts["published"]
    if published:
        patients = published["patients"]
        told = f", {number(patients)} patients" if patients else ""
        yield _row("published", f"{number(published['images'])} images{told}")
        for finding, count in published["positive"].items():
            yield _row("", f"{finding}: {number(count)} images with it")
    for parent, words in facts["descends"].items():
        yield _row("made of", f"{parent}: {words}")
    if facts["card"]:
        yield _row("card", f"{facts['card']} in medllm's repository")
    else:
        yield from _own_layout()


def _own_layout() -> Iterator[str]:
    from medllm.findings import FINDINGS

    yield _row("labels.csv", "path of the image, relative to the table")
    yield _row("", "a column per finding: 1 with it, 0 without, blank where unknown")
    yield _row("", "or one column findings: names divided by |, or No Finding")
    yield _row("", "patient_id, a pseudonym; without it each image counts as a patient")
    yield _row("", "age_years, sex, view_position (PA, AP, LATERAL), split and any others")
    yield _row("", "indication, what the request said: told to models that read one")
    yield _row("boxes.csv", "path, finding, x, y, width, height in pixels; only for boxes")
    words = textwrap.wrap(", ".join(FINDINGS), 80)
    for line, text in enumerate(words):
        yield _row("" if line else "findings", text)


def verification_page(found: Verification) -> Iterator[str]:
    """Write what a copy holds as lines."""
    published = found.published
    yield f"{found.dataset}: {found.title}"
    images = f"{number(found.images)} in the tables{_against(found.images, published, 'images')}"
    yield _row("images", images)
    patients = f"{number(found.patients)}{_against(found.patients, published, 'patients')}"
    yield _row("patients", patients)
    partial = ", a partial copy" if 0 < found.present < found.images else ""
    partial += "; not here: " if found.missing else ""
    missing = _few(found.missing, found.images - found.present)
    yield _row("files", f"{number(found.present)} of {number(found.images)}{partial}{missing}")
    yield _row("views", _counts(found.views))
    yield _row("parts", _counts(found.splits) or "no official split")
    yield from _label_rows(found)
    if found.boxes:
        outside = f"; {number(found.boxes_outside)} leave their image" * bool(found.boxes_outside)
        yield _row("boxes", f"{number(found.boxes)}{outside}")
    yield _row("sizes", _counts(found.sizes) or "no file was read")
    yield _row("stored as", _counts(found.stored) or "no file was read")
    polarity = f"{number(found.inverted)} of {number(found.frontal)} frontal images look inverted"
    told = _few(found.inverted_names, found.inverted)
    yield _row("polarity", f"{polarity}{': ' * bool(told)}{told}")
    again = sum(len(group) - 1 for group in found.duplicates)
    groups = f", in {number(len(found.duplicates))} groups: " if again else ""
    alike = _few([" = ".join(names[:3]) for names in found.duplicates[:3]], len(found.duplicates))
    yield _row("duplicates", f"{number(again)} files have the bytes of another{groups}{alike}")
    if found.warnings:
        yield _row("warnings", _counts(found.warnings))
    for words in found.caveats.values():
        yield _row("caveat", words)
    for code, count in found.unreadable.items():
        named = _few(found.unreadable_names[code], count)
        yield _row("UNREADABLE", f"{code}: {number(count)}: {named}")
    for words in found.faults.values():
        yield _row("FAULT", words)


def _label_rows(found: Verification) -> Iterator[str]:
    published = found.published.positive if found.published else {}
    heads = ("positive", "negative", "soft", "unknown", "published")
    yield _row("labels", f"{'':<28}" + "".join(f"{head:>10}" for head in heads))
    for finding, count in found.labels.items():
        numbers = [count.positive, count.negative, count.soft, count.unknown]
        cells = [
            *map(number, numbers),
            number(published[finding]) if finding in published else "",
        ]
        yield _row("", f"{finding:<28}" + "".join(f"{cell:>10}" for cell in cells)).rstrip()


def _against(count: int, published: Any, what: str) -> str:
    """Compare a count with the published one, if there is one."""
    wanted = getattr(published, what, None)
    if not wanted:
        return ""
    word = "as" if count == wanted else "fewer than" if count < wanted else "MORE than"
    return f", {word} published" + ("" if count == wanted else f" ({number(wanted)})")


def _few(names: Any, count: int) -> str:
    """Name the first few of many."""
    more = count - len(names)
    return ", ".join(names) + (f" and {number(more)} more" if more > 0 else "")


def leakage_lines(found: Leakage) -> Iterator[dict[str, Any]]:
    """Give the audit as records, one a JSON line."""
    yield from ({"set": dataclasses.asdict(one)} for one in found.sets)
    yield from ({"descent": words} for words in found.descent)
    yield from ({"shared": {**dataclasses.asdict(one), "leaks": one.leaks}} for one in found.shared)


def leakage_page(found: Leakage) -> Iterator[str]:
    """Write the audit as lines."""
    for one in found.sets:
        parts = [f"{number(one.compared)} of {number(one.images)} images compared"]
        if one.missing:
            parts.append(f"{number(one.missing)} files not here")
        if one.unreadable:
            parts.append(f"UNREADABLE: {_counts(one.unreadable)}")
        yield f"{one.name}: {', '.join(parts)}"
    for words in found.descent:
        yield f"known: {words}"
    yield from (f"not compared: patients of {words}" for words in _not_compared(found))
    for relation, title in _RELATIONS.items():
        rows = [one for one in found.shared if one.relation == relation]
        if rows:
            yield f"\n{title}"
            yield from (line for one in rows for line in _shared_rows(one))
    n_leaks = sum(one.leaks for one in found.shared)
    yield f"\n{'LEAKAGE' if n_leaks else 'no leakage found between sets or official parts'}"


def _not_compared(found: Leakage) -> Iterator[str]:
    for one, other in itertools.combinations(found.sets, 2):
        unknown = [side.name for side in (one, other) if not side.pseudonyms]
        if unknown:
            yield f"{one.name} and {other.name}, which {unknown[0]} does not tell apart"
        elif one.pseudonyms != other.pseudonyms:
            yield f"{one.name} and {other.name}, whose pseudonyms are not known to be the same"
    for one in found.sets:
        if not one.pseudonyms:
            yield f"{one.name} between its parts, which it does not tell apart"


def _shared_rows(one: Shared) -> Iterator[str]:
    count = number(one.n_first)
    if one.n_second != one.n_first:
        count += f" and {number(one.n_second)}"
    where = one.first if one.first == one.second else f"{one.first} and {one.second}"
    yield f"  {where}: {count} {_KINDS[one.kind]}"
    for ours, theirs in one.examples:
        yield f"    {ours} = {theirs}" if one.kind != "patients" else f"    {ours}, {theirs}"

"""The page of figures of an evaluation: one HTML file, no network, no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from itertools import count as counter
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medllm.evaluate import forest, plots, subgroups, wording
from medllm.evaluate.audits import wording as audit_wording
from medllm.evaluate.document import Evaluation, SubgroupFigures
from medllm.findings import finding
from medllm.report.wording import probability, signed, title

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


def render(evaluation: Evaluation, thumbnails: Mapping[str, bytes], *, folder: str = "") -> bytes:
    """Render the page.

    Args:
        evaluation: The figures; the page computes none of its own.
        thumbnails: PNG or JPEG files by the `path` of a worst error; one without is named alone.
        folder: The data set's folder as seen from the page's, such as `../nih`; empty where the
            page lies in it. Worst errors are linked there.

    Returns:
        UTF-8; the same bytes for the same arguments.

    Raises:
        LabelError: A finding's key is not known.
        ValueError: A thumbnail is neither PNG nor JPEG.
    """
    return fill(
        "page.html.j2",
        evaluation=evaluation,
        names={key: title(finding(key)) for key in _keys(evaluation)},
        subgroups=_by_finding(evaluation.subgroups),
        pictures={path: data_uri(content) for path, content in thumbnails.items()},
        folder=folder,
        readings=audit_wording.READINGS,
    )


def fill(template: str, **values: Any) -> bytes:
    """Fill in a template of this folder, with its style, policy, and numbers of figures and tables.

    Args:
        template: Its file.
        **values: What else it names.

    Returns:
        The page, in UTF-8.
    """
    style = (files("medllm.evaluate") / "templates" / "page.css").read_text(encoding="utf-8")
    figure, table = counter(1), counter(1)
    page = (
        _environment()
        .get_template(template)
        .render(
            **values,
            figure_number=lambda: next(figure),
            table_number=lambda: next(table),
            style=Markup(style),  # noqa: S704 - our own file, which the policy admits by its hash
            policy=_policy(style),
        )
    )
    return page.encode()


@cache
def _environment() -> Environment:
    """Give the templates of this folder, with the words and numbers they use."""
    made = Environment(
        loader=PackageLoader("medllm.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": wording.count,
        "number": wording.number,
        "ends": wording.ends,
        "with_ends": wording.with_ends,
        "share": wording.share,
        "p_value": wording.p_value,
        "attribute": wording.attribute,
        "probability": probability,
        "signed": signed,
        "href": _href,
        "verdict": audit_wording.verdict,
    }
    made.globals |= {
        "plots": plots,
        "draw_forest": forest.draw_forest,
        "flag": forest.FLAG,
        "no_area": forest.no_area,
        "min_cases": subgroups.MIN_CASES,
        "min_of_share": subgroups.MIN_OF_SHARE,
        "unknown": subgroups.UNKNOWN,
    }
    return made


def _policy(style: str) -> str:
    """Admit a page's own style and pictures, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _keys(evaluation: Evaluation) -> list[str]:
    """List every finding that is named anywhere, once, the evaluated ones first."""
    audits = evaluation.audits
    named = (
        *evaluation.findings,
        *evaluation.worst,
        *(row.finding for row in evaluation.subgroups),
        *(row.finding for kind in audit_wording.READINGS for row in getattr(audits, kind)),
    )
    return list(dict.fromkeys(named))


def _by_finding(groups: Sequence[SubgroupFigures]) -> dict[str, list[SubgroupFigures]]:
    """Part groups by finding; those of one attribute stand together."""
    parted: dict[str, dict[str, list[SubgroupFigures]]] = {}
    for one in groups:
        parted.setdefault(one.finding, {}).setdefault(one.attribute, []).append(one)
    return {
        key: list(chain.from_iterable(attributes.values())) for key, attributes in parted.items()
    }


def data_uri(content: bytes) -> str:
    """Write a picture into the page itself.

    Args:
        content: PNG or JPEG file.

    Returns:
        Its address.

    Raises:
        ValueError: It is neither.
    """
    for signature, kind in _SIGNATURES.items():
        if content.startswith(signature):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    raise ValueError(f"a thumbnail begins with {content[:8]!r}; wanted is a PNG or JPEG file.")


def _href(path: str, folder: str) -> str:
    """Link a file below a folder; the leading `./` keeps a path from naming a scheme or a host."""
    return quote(f"./{folder}/{path}" if folder else f"./{path}")

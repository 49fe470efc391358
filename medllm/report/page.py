"""The report as a page, which the HTML file shows and the PDF prints."""

from __future__ import annotations

import base64
import io
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from medllm.explanation.overlay import display_image
from medllm.report import view, wording
from medllm.report.document import BANNER, Report, usual_ranges
from medllm.report.gate_names import gate_name
from medllm.report.origin import digest
from medllm.report.sentences import (
    called,
    checks_in_short,
    disagreement,
    failed_checks,
    no_contrast,
    place,
)

# What the template says a value with, by its own name.
_WORDS = (
    wording.age,
    wording.alike,
    wording.calibrated,
    called,
    checks_in_short,
    wording.contract,
    disagreement,
    failed_checks,
    gate_name,
    wording.heading,
    wording.identity,
    wording.interval,
    wording.letters_of_sets,
    wording.measured,
    no_contrast,
    wording.odds,
    wording.percent,
    place,
    wording.prevalence,
    wording.probability,
    wording.region,
    wording.sex,
    view.sides,
    wording.signed,
    wording.subject,
    view.supposed,
    wording.title,
    wording.usual,
    usual_ranges,
    view.view,
    wording.where,
)


def render_page(report: Report, style: str, *, paged: bool = False, **added: Any) -> str:
    """Fill the template.

    Args:
        report: The report.
        style: Style sheet of our own; nothing of a header may be in it.
        paged: For paper: pictures on the first page, and boxes to tick instead of fields.
        **added: What else the template needs of the encoding.

    Returns:
        HTML.
    """
    image = display_image(report.scan)
    rows, columns = image.shape
    return fill(
        "report.html.j2",
        style,
        report=report,
        card=report.prediction.card,
        made_from=digest(report),
        radiograph=png(image),
        rows=rows,
        columns=columns,
        paged=paged,
        **added,
    )


def fill(template: str, style: str, **values: Any) -> str:
    """Fill in a template of this package, with the banner and the signs of the calls.

    Args:
        template: Its file.
        style: Style sheet of our own; nothing of a header may be in it.
        **values: What else it names.

    Returns:
        HTML.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            banner=BANNER,
            marks=wording.MARKS,
            # Markup: our own files, of which the policy admits exactly these bytes.
            style=Markup(style),  # noqa: S704 - not from a header
            **values,
        )
    )


def asset(name: str) -> str:
    """Read a file that stands beside the template."""
    return (files("medllm.report") / "templates" / name).read_text(encoding="utf-8")


def png(pixels: UInt8[np.ndarray, "rows columns *channels"]) -> str:
    """Give a picture as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medllm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in _WORDS}
    environment.filters |= {"png": png, "path": _path, "thumbnail": _thumbnail}
    return environment


def _thumbnail(pixels: UInt8[np.ndarray, "rows columns channels"]) -> str:
    """Give a smooth picture at a third of its size, as a data URI."""
    return png(np.ascontiguousarray(pixels[1::3, 1::3]))


def _path(lines: tuple[Float64[np.ndarray, "_ 2"], ...]) -> str:
    """Give contour lines as the `d` of an SVG path."""
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines)

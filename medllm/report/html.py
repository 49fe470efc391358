"""The report as one self-contained HTML page: inline pictures, no network."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float64, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from medllm.explanation.overlay import display_image
from medllm.report.document import BANNER, Report
from medllm.report.wording import WORDS


def encode(report: Report) -> bytes:
    """Encode a report.

    Args:
        report: The report.

    Returns:
        UTF-8.
    """
    image = display_image(report.scan)
    rows, columns = image.shape
    radiograph = _png(image)
    # One rule holds the radiograph for every figure, instead of a copy in each. The numbers and
    # base64 of our own making cannot end the style element.
    style = _asset("report.css") + f'.radiograph{{background-image:url("{radiograph}")}}\n'
    script = _asset("report.js")
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            card=report.prediction.card,
            banner=BANNER,
            radiograph=radiograph,
            rows=rows,
            columns=columns,
            # Markup: our own files, of which the policy admits exactly these bytes.
            style=Markup(style),  # noqa: S704 - not from a header
            script=Markup(script),  # noqa: S704 - not from a header
            policy=_policy(style, script),
        )
    )
    return page.encode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medllm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= WORDS | {"png": _png, "path": _path, "thumbnail": _thumbnail}
    return environment


def _policy(style: str, script: str) -> str:
    """Admit this page's own style, script and pictures, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("medllm.report") / "templates" / name).read_text(encoding="utf-8")


def _png(pixels: UInt8[np.ndarray, "rows columns *channels"]) -> str:
    """Give a picture as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _thumbnail(pixels: UInt8[np.ndarray, "rows columns channels"]) -> str:
    """Give a smooth picture at a third of its size, as a data URI."""
    return _png(np.ascontiguousarray(pixels[1::3, 1::3]))


def _path(lines: tuple[Float64[np.ndarray, "_ 2"], ...]) -> str:
    """Give contour lines as the `d` of an SVG path."""
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines)

"""The report as one self-contained HTML page: inline pictures, no network."""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from medllm.explanation.overlay import display_image
from medllm.report.document import BANNER, Report
from medllm.report.page import asset, png, render_page


def encode(report: Report) -> bytes:
    """Encode a report.

    Args:
        report: The report.

    Returns:
        UTF-8.
    """
    # One rule holds the radiograph for every figure, instead of a copy in each. Words and base64
    # of our own making cannot end the style element.
    radiograph = png(display_image(report.scan))
    style = (
        asset("report.css")
        + asset("screen.css")
        + f'@page{{@top-center{{content:"{BANNER}"}}}}\n'
        + f'.radiograph{{background-image:url("{radiograph}")}}\n'
    )
    script = asset("report.js")
    page = render_page(
        report,
        style,
        script=Markup(script),  # noqa: S704 - not from a header
        policy=policy(style, script),
    )
    return page.encode()


def policy(style: str, script: str = "") -> str:
    """Admit a page's own style, script and pictures, and nothing else.

    Args:
        style: Text of its style element.
        script: Text of its script element; empty where it has none.

    Returns:
        The content of `Content-Security-Policy`.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            *([f"script-src '{_hash(script)}'"] if script else []),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

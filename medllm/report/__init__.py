"""The report: one document, one module an encoding."""

from __future__ import annotations

from medllm.report.build import build_report
from medllm.report.document import Report

__all__ = ["Report", "build_report"]

"""The report: one document, one module an encoding."""

from __future__ import annotations

from medllm.report.build import build_report
from medllm.report.document import Report, ReportedFinding, ReportedMethod

__all__ = ["Report", "ReportedFinding", "ReportedMethod", "build_report"]

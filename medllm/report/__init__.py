"""The report: one document, one module an encoding."""

from __future__ import annotations

from medllm.report.build import build_report
from medllm.report.document import Report, ReportedFinding, ReportedMethod
from medllm.report.overview import Overview, write_overview

__all__ = [
    "Overview",
    "Report",
    "ReportedFinding",
    "ReportedMethod",
    "build_report",
    "write_overview",
]

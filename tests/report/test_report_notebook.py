"""A report, and what it is made of, as a notebook shows them."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

from medllm.dicom.header import Identity
from medllm.report import build_report
from medllm.report.html import encode


def test_each_part_is_named_in_a_line(scan, prediction, explanations, report):
    assert repr(scan) == f"Radiograph({scan.path.name}: dicom 300 x 250)"
    assert repr(prediction) == (
        "Prediction(a.dcm: cardiomegaly 0.91 positive, pneumonia 0.87 positive, "
        "effusion 0.46 indeterminate, pneumothorax 0.01 negative, uncalibrated)"
    )
    assert repr(explanations[0]) == (
        "Explanation(pneumonia by integrated-gradients: log-odds 2.50, supported)"
    )
    against = replace(explanations[0], against="effusion")
    assert repr(against).startswith("Explanation(pneumonia against effusion by ")
    assert repr(report).startswith(f"Report({report.report_id}: cardiomegaly 0.91 positive, ")


def test_no_line_names_a_patient_whom_the_report_names(report):
    named = replace(report, identity=Identity(patient_name="Quixote^Alonso"))
    assert "Quixote" not in repr(named)


def test_a_notebook_shows_the_page_in_a_frame(report):
    frame = report._repr_html_()
    page = re.search('srcdoc="([^"]*)"', frame).group(1)
    assert html.unescape(page) == encode(report).decode()


def test_a_frame_shows_the_page_with_its_styles_and_script(report, see_probe):
    probe = (
        report._repr_html_()
        + """<pre id="seen"></pre><script>
    addEventListener("load", () => {
      const frame = document.querySelector("iframe");
      document.getElementById("seen").textContent =
        JSON.stringify({width: frame.clientWidth, height: frame.clientHeight});
    });</script>"""
    )
    seen = see_probe(probe)
    assert seen["height"] == 800
    # The page's own policy would tell of a style or a script that it does not admit.
    assert seen["console"] == []


def test_one_format_and_one_explanation_may_stand_by_themselves(
    scan, prediction, explanations, tmp_path
):
    report = build_report(scan, prediction, explanations[0])
    assert [entry.finding.key for entry in report.explained] == ["pneumonia"]
    written = report.write(tmp_path, formats="json")
    assert list(written) == ["json"]
    assert json.loads((tmp_path / "report.json").read_text())["report_id"] == report.report_id

import json
from dataclasses import replace

import pytest

from medllm.errors import ReportError
from medllm.report import formats


def test_each_format_is_a_file_in_a_folder_made_for_it(report, tmp_path):
    paths = report.write(tmp_path / "new" / "folder")
    assert {name: [path.name for path in files] for name, files in paths.items()} == {
        "html": ["report.html"],
        "json": ["report.json"],
    }
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "report.html",
        "report.json",
    ]
    assert json.loads(paths["json"][0].read_text())["report_id"] == report.report_id


def test_an_unknown_format_is_refused_with_those_known(report, tmp_path):
    with pytest.raises(ReportError, match="'docx' is not a report format; use one of: html, json"):
        report.write(tmp_path / "out", ["json", "docx"])
    assert not (tmp_path / "out").exists()


def test_a_format_that_fails_leaves_the_earlier_report_whole(report, tmp_path, monkeypatch):
    paths = report.write(tmp_path)
    before = {path: path.read_bytes() for files in paths.values() for path in files}

    def fail(_):
        raise ReportError("no")

    monkeypatch.setitem(formats.FORMATS, "json", fail)
    with pytest.raises(ReportError, match="no"):
        replace(report, report_id="R-other").write(tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_cannot_be_written_to_is_an_error_in_one_line(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written to") as caught:
        report.write(tmp_path / "file", ["json"])
    assert "\n" not in str(caught.value)


def test_nothing_is_left_beside_a_report_that_could_not_be_put_in_place(report, tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(ReportError):
        report.write(tmp_path, ["json"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]

"""The overview of many reports says what each of them says, and touches no file of others."""

import json
import math
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.data.anatomy import REGIONS
from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Gate
from medllm.errors import ReportError
from medllm.evaluate.explanations import localised
from medllm.evaluate.explanations import table as evaluated
from medllm.explanation.record import Region, ZoneEffect
from medllm.report import build_report, write_overview
from medllm.report.document import BANNER
from medllm.report.overview import rows
from medllm.report.overview.stored import StoredReport, read_reports
from medllm.report.overview.table import SCHEMA
from medllm.report.wording import region_key

PAGE, TABLE = "index.html", "explanations.parquet"


@pytest.fixture
def out(report, compared, tmp_path) -> Path:
    """Two reports, as `medllm explain` leaves them: one method, and several."""
    report.write(tmp_path / "out" / "alone", ["html", "json"])
    compared.write(tmp_path / "out" / "compared", ["json"])
    return tmp_path / "out"


def rows_in(out: Path) -> list[dict]:
    return pq.read_table(out / TABLE).to_pylist(maps_as_pydicts="strict")


def text_of(out: Path) -> str:
    """The page's words, one blank between each two."""
    page = (out / PAGE).read_text()
    return " ".join(
        re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)).split()
    )


def entries_in(out: Path) -> list[str]:
    """What the page says of each radiograph."""
    body = (out / PAGE).read_text()
    found = re.findall(r"<tbody>(.*?)</tbody>", body, flags=re.S)
    return [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in found]


def as_stored(out: Path, name: str) -> dict:
    return json.loads((out / name / "report.json").read_text())


def region_name(part: dict) -> str:
    return f"{part['side']} {part['zone']}" if part["side"] else part["zone"]


def test_a_row_says_what_the_report_says(out):
    made = write_overview(out)
    assert (made.n_reports, made.skipped, made.removed) == (2, (), ())
    assert set(made.files) == {out / PAGE, out / TABLE}
    stored = as_stored(out, "alone")
    of_finding = {entry["finding"]: entry for entry in stored["findings"]}
    rows = [row for row in rows_in(out) if row["report"] == "alone"]
    assert [row["finding"] for row in rows] == list(of_finding)
    for row in rows:
        entry = of_finding[row["finding"]]
        assert {key: row[key] for key in ("log_odds", "probability", "call")} == {
            key: entry[key] for key in ("log_odds", "probability", "call")
        }
        for key in ("report_id", "made_at", "made_from"):
            assert row[key] == stored[key]
        for key in ("sop_instance_uid", "study_instance_uid", "view_position"):
            assert row[key] == stored["image"][key]
        assert row["image_sha256"] == stored["image"]["sha256"]
        assert (row["age_years"], row["sex"]) == (54.0, "F")
        assert [row[f"model_{key}"] for key in ("name", "version", "sha256")] == [
            stored["model"][key] for key in ("name", "version", "sha256")
        ]
        assert row["medllm_version"] == stored["software"]["medllm"]
        why = entry.get("explanation")
        if why is None:
            told = [
                row[key] for key in ("method", "verdict", "region", "checks", "passed", "seconds")
            ]
            assert told == [None] * 6
            continue
        assert (row["method"], row["verdict"]) == (why["method"], why["verdict"])
        assert (row["seconds"], row["completeness_error"]) == (1.2, 0.00312)
        assert (row["region"], row["region_share"]) == ("right lower", 0.4127)
        assert row["region_by_hiding"] == "right lower"
        assert row["checks"] == {check["name"]: check["value"] for check in why["checks"]}
        assert row["passed"] == {check["name"]: check["passed"] for check in why["checks"]}


def test_each_method_has_a_row_and_one_that_refused_says_why(out):
    write_overview(out)
    rows = [row for row in rows_in(out) if row["report"] == "compared"]
    told = [(row["finding"], row["method"], row["verdict"], row["refusal"]) for row in rows]
    assert told == [
        ("pneumonia", "integrated-gradients", "supported", None),
        ("pneumonia", "occlusion", "supported", None),
        ("pneumonia", "rise", "weak", None),
        ("pneumonia", "grad-cam", "do not use", None),
        ("pneumonia", "attention-rollout", None, "the encoder gives no attention weights."),
        ("cardiomegaly", None, None, None),
        ("effusion", "integrated-gradients", "weak", None),
        ("pneumothorax", None, None, None),
    ]
    assert [row["against"] for row in rows] == [None] * 6 + ["cardiomegaly", None]
    # Of the answer and not of a method.
    assert {row["region_by_hiding"] for row in rows[:5]} == {"right lower"}


def test_a_finding_whose_explanation_was_refused_says_why(scan, prediction, explanations, out):
    why = {"effusion": "integrated gradients do not add up."}
    refused = build_report(scan, prediction, explanations[:1], refused=why)
    refused.write(out / "refused", ["json"])
    write_overview(out)
    (row,) = (
        row for row in rows_in(out) if (row["report"], row["finding"]) == ("refused", "effusion")
    )
    assert (row["refusal"], row["method"], row["verdict"]) == (why["effusion"], None, None)
    assert "1 refused" in text_of(out)


def test_a_map_without_regions_names_none_and_a_check_that_is_not_defined_is_not_a_number(
    scan, prediction, explanations, out
):
    first = explanations[0]
    checks = (replace(first.checks[0], value=math.nan), *first.checks[1:])
    lowers = tuple(Region(part.zone, part.side, 0.0, -1.0) for part in first.regions)
    effects = tuple(ZoneEffect(part.zone, part.side, -1.0, 3.0) for part in first.zone_effects)
    for name, regions, hidden in (("none", (), ()), ("lowers", lowers, effects)):
        why = replace(first, regions=regions, zone_effects=hidden, checks=checks)
        build_report(scan, prediction, [why]).write(out / name, ["json"])
    write_overview(out)
    rows = [row for row in rows_in(out) if row["report"] in ("none", "lowers") and row["method"]]
    assert len(rows) == 2
    for row in rows:
        assert [row[key] for key in ("region", "region_share", "region_by_hiding")] == [None] * 3
        assert math.isnan(row["checks"]["completeness"])


def test_what_both_tables_have_is_named_and_typed_alike():
    shared = set(SCHEMA.names) & set(evaluated.SCHEMA.names)
    assert shared >= {"finding", "method", "log_odds", "probability", "call", "verdict", "region"}
    assert shared >= {"checks", "passed", "seconds"}
    for name in shared:
        assert SCHEMA.field(name).type == evaluated.SCHEMA.field(name).type, name
    sides = [
        f"{side} {zone}" for side in ("right", "left") for zone in ("upper", "middle", "lower")
    ]
    regions = [Region(zone, side, 0.5, 1.0) for zone, side in REGIONS]
    assert {*map(region_key, regions)} == {*sides, "mediastinum", "outside"}
    assert rows.region_key is localised.region_key


def test_the_words_are_those_of_the_report(out, report):
    write_overview(out)
    page = text_of(out)
    for entry in report.explained:
        said = entry.reason.partition(" - ")[2]
        assert said[0].upper() + said[1:].replace("&", "&amp;") in page.replace("&#39;", "'")
    assert page.startswith(f"AI findings on 2 chest radiographs {BANNER} ")
    assert all(sentence in page.replace("&#39;", "'") for sentence in report.limitations)
    # The two reports have the same calls.
    assert "▲ 2 positive ◆ 0 indeterminate ○ 0 negative" in page
    assert "2 supported 2 weak 1 do not use" in page


def test_no_place_is_told_of_a_map_that_must_not_be_used(scan, prediction, explanations, tmp_path):
    withheld = replace(explanations[0], verdict="do not use")
    for name in ("a", "b"):
        build_report(scan, prediction, [withheld]).write(tmp_path / name, ["json"])
    write_overview(tmp_path)
    assert "1 of" not in text_of(tmp_path)
    assert "zone" not in text_of(tmp_path)
    assert "so that no map is drawn." in text_of(tmp_path)


def test_a_side_that_is_only_supposed_is_told_as_such(scan, prediction, explanations, tmp_path):
    unsided = replace(scan, patient_orientation=None)
    for name, one in (("sided", scan), ("unsided", unsided)):
        build_report(one, prediction, explanations[:1]).write(tmp_path / name, ["json"])
    write_overview(tmp_path)
    entries = {entry.split()[0]: entry for entry in entries_in(tmp_path)}
    assert "if the image&#39;s left is the patient&#39;s right" in entries["unsided"]
    assert "if the image" not in entries["sided"]


def test_the_most_pressing_radiograph_stands_first(scan, prediction, tmp_path):
    def answered(name: str, *calls: tuple[str, float]) -> None:
        answers = tuple(
            replace(one, call=call, probability=probability)
            for one, (call, probability) in zip(prediction.findings, calls, strict=False)
        )
        said = replace(prediction, findings=answers)
        build_report(scan, said).write(tmp_path / name, ["json"])

    answered("a", ("negative", 0.3), ("negative", 0.02))
    answered("b", ("indeterminate", 0.5), ("negative", 0.55))
    answered("c", ("positive", 0.7), ("negative", 0.1))
    answered("d", ("negative", 0.1), ("positive", 0.9))
    answered("e", ("negative", 0.1), ("negative", 0.31))
    write_overview(tmp_path)
    assert [entry.split()[0] for entry in entries_in(tmp_path)] == ["d", "c", "b", "e", "a"]
    assert "▲ 2 positive ◆ 1 indeterminate ○ 2 negative" in text_of(tmp_path)


def test_of_many_findings_those_that_are_called_are_told_and_the_others_counted(
    card, scan, prediction, tmp_path
):
    names = ("edema", "consolidation", "atelectasis")
    asked = [replace(card.questions[1], finding=name) for name in names]
    more = [replace(prediction.findings[-1], finding=name) for name in names]
    said = replace(
        prediction,
        card=replace(card, questions=(*card.questions, *asked)),
        findings=(*prediction.findings, *more),
    )
    build_report(scan, said).write(tmp_path / "raised", ["json"])
    quiet = tuple(
        replace(one, call="negative", probability=0.2 + place / 100)
        for place, one in enumerate(said.findings)
    )
    build_report(scan, replace(said, findings=quiet)).write(tmp_path / "quiet", ["json"])
    write_overview(tmp_path)
    raised, lone = entries_in(tmp_path)
    assert "Cardiomegaly: positive" in raised
    assert "Pleural effusion: indeterminate" in raised
    assert "Pneumothorax" not in raised
    assert raised.endswith("and 4 others, negative")
    # Where nothing is called, the most probable.
    assert "Atelectasis: negative 0.26" in lone
    assert lone.endswith("and 6 others, negative")
    assert len([row for row in rows_in(tmp_path) if row["report"] == "raised"]) == 7


def test_a_link_leads_to_the_report_that_is_there(report, tmp_path):
    for name, formats in (("of 50% & <b>#1", ["html", "json"]), ("data", ["json"])):
        report.write(tmp_path / name, formats)
    report.write(tmp_path / "paper", ["json"])
    (tmp_path / "paper" / "report.pdf").write_bytes(b"%PDF-1.7")
    write_overview(tmp_path)
    page = (tmp_path / PAGE).read_text()
    links = {unquote(link) for link in re.findall(r'href="([^"]+)"', page)}
    assert links == {"./of 50% & <b>#1/report.html", "./paper/report.pdf"}
    assert all((tmp_path / link).is_file() for link in links)
    assert "<b>" not in page
    assert ">data<" in page


def test_a_folder_whose_name_is_no_text_has_a_row(report, tmp_path):
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    report.write(named, ["html", "json"])
    report.write(tmp_path / "b", ["json"])
    write_overview(tmp_path)
    assert {row["report"] for row in rows_in(tmp_path)} == {"caf�", "b"}
    assert 'href="./caf%E9/report.html"' in (tmp_path / PAGE).read_text()


def test_what_the_image_did_not_pass_is_told(scan, prediction, tmp_path):
    lateral = Gate("lateral-view", "warning", False, "It is lateral.")
    for name, one in (
        ("plain", scan),
        ("lateral", replace(scan, view_position=None, age_years=None, gates=(lateral,))),
    ):
        said = replace(prediction, warnings=one.warnings)
        build_report(one, said).write(tmp_path / name, ["json"])
    write_overview(tmp_path)
    entries = {entry.split()[0]: entry for entry in entries_in(tmp_path)}
    assert "age not stated, female, lateral Read with caution: lateral view." in entries["lateral"]
    assert "54 years, female, PA" in entries["plain"]


def test_the_patient_is_never_named(scan, prediction, explanations, tmp_path):
    who = Identity("Doe^Jane", "PID-4711", "19700102", "ACC-9", "20250314", "1509", "Thorax",
                   "St.X", "Ref^Erring")  # fmt: skip
    for name in ("a", "b"):
        named = build_report(scan, prediction, explanations, identity=who)
        named.write(tmp_path / name, ["html", "json"])
        assert "Doe^Jane" in (tmp_path / name / "report.json").read_text()
    write_overview(tmp_path)
    table = pq.read_table(tmp_path / TABLE)
    said = (tmp_path / PAGE).read_text() + str(table.to_pylist()) + str(table.schema)
    for value in ("Doe", "PID-4711", "19700102", "ACC-9", "20250314", "Thorax", "St.X", "Ref^"):
        assert value not in said
    assert not any("identity" in name or "patient" in name for name in table.column_names)


def test_what_is_no_report_of_medllm_is_left_out_and_counted(out):
    whole = (out / "alone" / "report.json").read_bytes()
    later = json.loads(whole) | {"schema_version": 2}
    ragged = json.loads(whole)
    ragged["findings"][0]["explanation"]["map"]["values"][0].append(0.5)
    worded = json.loads(whole)
    worded["findings"][0]["probability"] = "high"
    foreign = {
        "half": whole[: len(whole) // 2],
        "later": json.dumps(later).encode(),
        "ragged": json.dumps(ragged).encode(),
        "worded": json.dumps(worded).encode(),
        "silent": json.dumps({**later, "schema_version": 1, "findings": []}).encode(),
        "others": b'{"total": 3, "tests": []}',
        "list": b"[1, 2]",
        "empty": b"",
        "binary": bytes(range(256)),
    }
    for name, content in foreign.items():
        (out / name).mkdir()
        (out / name / "report.json").write_bytes(content)
    (out / "folder" / "report.json").mkdir(parents=True)
    (out / "killed").mkdir()
    (out / "killed" / ".report.json.0123").write_bytes(whole)  # what a kill leaves
    made = write_overview(out)
    assert made.n_reports == 2
    assert {path.parent.name for path in made.skipped} == {*foreign, "folder"}
    assert "Left out: 10 files called report.json from which no report could be read." in text_of(
        out
    )
    assert {row["report"] for row in rows_in(out)} == {"alone", "compared"}


def test_a_key_that_a_later_version_adds_is_passed_over(out):
    stored = as_stored(out, "alone") | {"new": 1}
    stored["findings"][0]["explanation"]["regions"][0]["new"] = [1]
    stored["findings"][0]["explanation"]["checks"][0]["new"] = {}
    stored["input_checks"][0]["new"] = None
    stored["findings"][0]["calibration"]["new"] = 2
    (out / "alone" / "report.json").write_text(json.dumps(stored))
    assert write_overview(out).n_reports == 2


def test_written_and_read_back_is_equal(out, report, explanations):
    stored = dict(read_reports(out))[out / "alone" / "report.json"]
    assert isinstance(stored, StoredReport)
    scan = stored.scan(out / "alone")
    for name in ("sha256", "rows", "columns", "patient_orientation", "age_years", "sex"):
        assert getattr(scan, name) == getattr(report.scan, name)
    assert scan.gates == report.gates
    for entry in report.explained:
        (found,) = (one for one in stored.findings if one.finding == entry.finding.key)
        read, made = found.explained(), entry.explanation
        np.testing.assert_array_equal(read.map.values, made.map.values)
        assert read.map.box == made.map.box
        for name in ("method", "regions", "zone_effects", "checks", "verdict", "log_odds", "layer"):
            assert getattr(read, name) == getattr(made, name), name


def others_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>My study</title>")


def evaluations_table(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"finding": "nodule"}], schema=evaluated.SCHEMA), path)


def marked_otherwise(path: Path) -> None:
    schema = pa.schema([("a", pa.int32())], metadata={b"medllm": b"something else"})
    pq.write_table(pa.Table.from_pylist([{"a": 1}], schema=schema), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (PAGE, others_page),
        (PAGE, lambda path: path.write_bytes(b"\xff\xfe")),
        (PAGE, Path.mkdir),
        (TABLE, evaluations_table),
        (TABLE, marked_otherwise),
        (TABLE, lambda path: path.write_text("no table")),
        (TABLE, Path.mkdir),
    ],
)
def test_a_file_of_others_is_never_written_over(name, write, out):
    write(out / name)
    before = (out / name).read_bytes() if (out / name).is_file() else None
    with pytest.raises(ReportError, match=r"is not an overview .* move it, or give") as refused:
        write_overview(out)
    assert refused.value.code == "foreign-file"
    assert ((out / name).read_bytes() if (out / name).is_file() else None) == before
    assert {path.name for path in out.iterdir()} == {"alone", "compared", name}
    # Nor taken away, when there is nothing to look over.
    shutil.rmtree(out / "compared")
    assert write_overview(out).removed == ()
    assert (out / name).exists()


def test_an_overview_follows_its_reports(out, report):
    write_overview(out)
    first = (out / PAGE).read_bytes()
    assert write_overview(out).files
    assert (out / PAGE).read_bytes() == first
    report.write(out / "third", ["json"])
    assert write_overview(out).n_reports == 3
    assert {row["report"] for row in rows_in(out)} == {"alone", "compared", "third"}
    for name in ("alone", "third"):
        shutil.rmtree(out / name)
    gone = write_overview(out)
    assert (gone.n_reports, gone.files) == (1, ())
    assert set(gone.removed) == {out / PAGE, out / TABLE}
    assert [path.name for path in out.iterdir()] == ["compared"]


def test_one_report_or_none_has_no_overview(report, tmp_path):
    assert write_overview(tmp_path / "nowhere").n_reports == 0
    report.write(tmp_path / "a", ["json"])
    assert write_overview(str(tmp_path)).n_reports == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_earlier_overview(out, full_disk):
    write_overview(out)
    before = {name: (out / name).read_bytes() for name in (PAGE, TABLE)}
    with full_disk(100), pytest.raises(ReportError, match="cannot be written to") as refused:
        write_overview(out)
    assert refused.value.code == "unwritable-folder"
    assert {name: (out / name).read_bytes() for name in (PAGE, TABLE)} == before
    assert {path.name for path in out.iterdir()} == {"alone", "compared", PAGE, TABLE}


def test_a_kill_leaves_both_files_whole(out, programs):
    code = f"from medllm.report import write_overview\nwhile True: write_overview({str(out)!r})"
    program = programs.start(code=code)
    deadline = time.monotonic() + 60
    while not (out / PAGE).exists():
        assert program.poll() is None, program.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert (out / PAGE).read_text().endswith("</html>")
    assert len(rows_in(out)) == 12
    assert write_overview(out).n_reports == 2


def test_a_probability_that_is_not_calibrated_says_so(card, scan, prediction, tmp_path):
    for name in ("a", "b"):
        build_report(scan, prediction).write(tmp_path / name, ["json"])
    write_overview(tmp_path)
    (first, _) = entries_in(tmp_path)
    # Pneumothorax is the one without a calibration.
    assert first.count("uncalibrated") == 1
    assert first.index("Pneumothorax") < first.index("uncalibrated")


def test_probabilities_that_are_written_alike_and_called_differently_say_why(
    scan, prediction, tmp_path
):
    for name in ("a", "b"):
        build_report(scan, prediction).write(tmp_path / name, ["json"])
    stored = json.loads((tmp_path / "a" / "report.json").read_text())
    for finding, value in zip(stored["findings"], (0.8304, 0.8326, 0.3, 0.3004), strict=True):
        finding["probability"] = value
        finding["calibration"] |= {"low": 0.3, "high": 0.831, "fitted_on": "Site A"}
    (tmp_path / "a" / "report.json").write_text(json.dumps(stored))
    write_overview(tmp_path)
    page = "".join(entries_in(tmp_path))
    assert page.count("positive from") == 2
    assert "0.300000; negative below 0.300000" in page
    assert "0.3004; negative below 0.3000" in page
    assert "0.830; positive from 0.831" in page
    assert "0.833; positive from 0.831" in page


def test_answers_without_thresholds_are_counted_apart(scan, uncalled, report, tmp_path):
    (answer,) = (one for one in uncalled.findings if one.finding == "pneumonia")
    alone = build_report(scan, replace(uncalled, findings=(answer,)))
    alone.write(tmp_path / "uncalled", ["json"])
    report.write(tmp_path / "called", ["json"])
    write_overview(tmp_path)
    text = text_of(tmp_path)
    assert "▲ 1 positive ◆ 0 indeterminate □ 1 not called ○ 0 negative" in text
    assert "then the indeterminate, then those not called, then the negative" in text
    said = next(entry for entry in entries_in(tmp_path) if entry.startswith("uncalled"))
    assert "□ Pneumonia: not called 0.87 uncalibrated" in said
    assert "indeterminate" not in said.lower()

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from medllm.dicom import read_radiograph
from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Gate
from medllm.explanation.overlay import display_image
from medllm.explanation.record import ZoneEffect
from medllm.report import capture, wording
from medllm.report.capture import HEIGHT, WIDTH, draw_finding, draw_summary
from medllm.report.dicom.sc import encode
from medllm.report.dicom.source import read_source

# The radiograph's square stands below the banner, at the left.
SIDE, BANNER = 1024, HEIGHT - 1024


def captures(report):
    source = read_source(report)
    return {name: source.finish(dataset) for name, dataset in encode(report, source).items()}


def square(picture):
    return picture[BANNER:, :SIDE].astype(float)


def enlarged(scan):
    """The radiograph as a picture has it, by another way than medllm's."""
    grey = Image.fromarray(display_image(scan))
    factor = SIDE / max(grey.size)
    columns, rows = (round(side * factor) for side in grey.size)
    return np.asarray(grey.resize((columns, rows), Image.Resampling.LANCZOS)).astype(float)


def test_the_captures_are_valid_and_of_the_study(dicom_report, errors_of):
    made, source = captures(dicom_report), read_source(dicom_report)
    # Cardiomegaly's map must not be used, and pneumothorax is not explained.
    assert list(made) == ["sc-summary", "sc-pneumonia", "sc-effusion"]
    assert [dataset.InstanceNumber for dataset in made.values()] == [1, 2, 3]
    for dataset in made.values():
        assert errors_of(dataset) == []
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert dataset.BurnedInAnnotation == "YES"
        assert dataset.SeriesDescription.startswith("AI")
        assert dataset.StudyInstanceUID == dicom_report.scan.study_instance_uid
        assert dataset.SeriesInstanceUID != dicom_report.scan.series_instance_uid
        assert dataset.PatientID == source.patient.PatientID
        referenced = dataset.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert referenced == dicom_report.scan.sop_instance_uid
    assert len({dataset.SOPInstanceUID for dataset in made.values()}) == 3
    assert len({dataset.SeriesInstanceUID for dataset in made.values()}) == 1
    assert "positive (calibrated probability 0.87" in made["sc-pneumonia"].ImageComments


def test_dcmtk_shows_the_picture_that_was_drawn(report_of, dicom_phantoms, tmp_path):
    if shutil.which("dcm2pnm") is None:
        pytest.skip("dcm2pnm is not installed; it is in Debian's dcmtk")
    report = report_of(dicom_phantoms["dx"])
    for name, dataset in captures(report).items():
        dataset.save_as(tmp_path / "sc.dcm", enforce_file_format=True)
        command = ["dcm2pnm", tmp_path / "sc.dcm", tmp_path / "sc.ppm"]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        shown = np.asarray(Image.open(tmp_path / "sc.ppm"))
        entries = {f"sc-{entry.finding.key}": entry for entry in report.findings}
        drawn = draw_finding(report, entries[name]) if name in entries else draw_summary(report)
        assert np.array_equal(shown, drawn)
        assert np.array_equal(dcmread(tmp_path / "sc.dcm").pixel_array, drawn)


def test_the_radiograph_has_air_dark_whatever_the_polarity_of_the_file(report_of, dicom_path):
    report = report_of(dicom_path)
    shown, wanted = square(draw_summary(report)), enlarged(report.scan)
    rows, columns = wanted.shape
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    shown = shown[top : top + rows, left : left + columns]
    # Below the markers of the sides; to the grey level.
    assert np.array_equal(shown[60:], wanted[60:, :, None].repeat(3, axis=2))


def test_the_colours_and_lines_are_where_the_map_is(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    entry = next(entry for entry in report.findings if entry.finding.key == "pneumonia")
    shown, plain = square(draw_finding(report, entry)), enlarged(report.scan)
    # The hot patch of the hand-made map, row 8 and column 3 of 12: raises, so red over blue.
    row, column = round(SIDE * 8.5 / 12), round(SIDE * 3.5 / 12)
    assert shown[row, column, 0] - shown[row, column, 2] > 50
    # Row 3 and column 8 lower the finding.
    row, column = round(SIDE * 3.5 / 12), round(SIDE * 8.5 / 12)
    assert shown[row, column, 2] - shown[row, column, 0] > 20
    # White lines, where the plain radiograph is not white: at the drawn contour, and nowhere else.
    white = (shown.min(axis=2) > 250) & (plain < 240)
    white[:60] = False  # markers of the sides
    for lines, share in ((entry.overlay.raising, 0.9), (entry.overlay.lowering, 0.3)):
        points = np.concatenate(lines) * SIDE / 200
        at = tuple(points.astype(int).clip(0, SIDE - 1).T[::-1])
        assert white[at].mean() > share  # of dashes, half
    drawn = np.concatenate([*entry.overlay.raising, *entry.overlay.lowering]) * SIDE / 200
    far = [np.hypot(*(drawn - (x, y)).T).min() for y, x in np.argwhere(white)[::50]]
    assert max(far) < 8


def test_where_no_map_may_be_used_one_picture_says_so(report_of, dicom_phantoms, explanations):
    withheld = [one for one in explanations if one.verdict == "do not use"]
    report = report_of(dicom_phantoms["dx"], why=withheld)
    made = captures(report)
    assert list(made) == ["sc-summary"]
    with_maps = draw_summary(report_of(dicom_phantoms["dx"]))
    said = draw_summary(report)
    assert np.array_equal(square(said), square(with_maps))
    assert not np.array_equal(said[:, SIDE:], with_maps[:, SIDE:])
    with pytest.raises(ValueError, match="'cardiomegaly' has no overlay; draw the summary"):
        draw_finding(report, report.explained[0])


def test_no_identity_is_in_the_pixels(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    who = Identity(patient_name="Doe^Jane", patient_id="4711", accession_number="A1")
    named = replace(report, identity=who)
    assert np.array_equal(draw_summary(named), draw_summary(report))
    for entry in report.findings:
        if entry.overlay is not None:
            assert np.array_equal(draw_finding(named, entry), draw_finding(report, entry))


def test_the_sides_are_the_patients(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    scan = replace(report.scan, pixels=np.zeros_like(report.scan.pixels))
    corners = {}
    for orientation in (("L", "F"), ("R", "F"), ("A", "F"), None):
        turned = replace(report, scan=replace(scan, patient_orientation=orientation))
        top = square(draw_summary(turned))[:60]
        corners[orientation] = top[:, : SIDE // 2], top[:, SIDE // 2 :]
    known = [corners[("L", "F")], corners[("R", "F")]]
    # Words at the left and a letter at the right, and not the same ones.
    assert all(left.any() and right.any() for left, right in known)
    assert all(not np.array_equal(*both) for both in zip(*known, strict=True))
    for unknown in (("A", "F"), None):
        assert not any(corner.any() for corner in corners[unknown])


@pytest.mark.parametrize("shape", [(16, 16), (1, 900), (901, 900), (4100, 1300)])
def test_a_picture_has_one_size_whatever_the_image_has(report_of, dicom_phantoms, shape):
    report = report_of(dicom_phantoms["dx"])
    pixels = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    scan = replace(report.scan, pixels=pixels)
    picture = draw_summary(replace(report, scan=scan))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.nbytes < 5_000_000
    # The middle grey of the ramp is in the middle of the square.
    middle = square(picture)[SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2, 0]
    assert abs(middle.max() - 127.5) < 8


@pytest.fixture
def written(monkeypatch):
    """What is written into the pictures' panels, line by line."""
    lines = []

    def keep(name):
        own = getattr(capture._Panel, name)

        def wrapped(panel, *words, **style):
            lines.append(" ".join(word for word in words if isinstance(word, str)))
            own(panel, *words, **style)

        monkeypatch.setattr(capture._Panel, name, wrapped)

    keep("write")
    keep("row")
    return lines


def test_what_the_image_did_not_pass_stands_on_every_picture(report_of, dicom_phantoms, written):
    report = report_of(dicom_phantoms["dx"])
    failed = (Gate("lateral-view", "warning", False, ""), Gate("not-human", "error", False, ""))
    cautious = replace(report, gates=failed)
    pneumonia = cautious.findings[0]
    said = "Read with caution: lateral view, an animal stated."
    pictures = [draw_summary(cautious), draw_finding(cautious, pneumonia)]
    assert written.count(said) == 2
    foot = slice(HEIGHT - 170, HEIGHT), slice(SIDE, WIDTH)
    # All that can fail at once still pushes nothing out.
    all_failed = replace(report, gates=tuple(replace(gate, passed=False) for gate in report.gates))
    assert len(all_failed.gates) > 20
    pictures += [draw_summary(all_failed), draw_finding(all_failed, pneumonia)]
    assert all(np.array_equal(pictures[0][foot], one[foot]) for one in pictures)


def test_a_lateral_view_has_no_sides(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    scan = replace(report.scan, pixels=np.zeros_like(report.scan.pixels))
    assert square(draw_summary(replace(report, scan=scan)))[:60].any()
    lateral = replace(scan, gates=(Gate("lateral-view", "warning", False, ""),))
    assert not square(draw_summary(replace(report, scan=lateral)))[:60].any()


def test_a_contrast_has_no_call_of_its_own(report_of, dicom_phantoms, compared, written):
    why = [entry.explanation for entry in compared.explained]
    report = report_of(dicom_phantoms["dx"], why=why)
    entries = {entry.finding.key: entry for entry in report.findings}
    draw_finding(report, entries["effusion"])
    assert written[:2] == [
        "Why pleural effusion rather than cardiomegaly",
        "◆ Pleural effusion: indeterminate",
    ]
    assert "Difference of log-odds \N{MINUS SIGN}2.21" in written
    written.clear()
    draw_finding(report, entries["pneumonia"])
    assert written[:2] == ["Pneumonia", "▲ Positive"]
    assert not any("Difference" in line for line in written)


def test_an_answer_that_was_pulled_by_a_context_says_so(report_of, dicom_phantoms, written):
    report = report_of(dicom_phantoms["dx"])
    entry = report.findings[0]
    told = replace(entry, prediction=replace(entry.prediction, without_context=-9.0))
    draw_finding(report, told)
    assert "Told a clinical context; without it: 0.002, negative" in written
    draw_summary(replace(report, findings=(told, *report.findings[1:])))
    assert "Told a clinical context; without it: Pneumonia 0.002, negative." in written


def test_another_place_is_told_beside_the_map(report_of, dicom_phantoms, explanations, written):
    one = explanations[0]
    outside = (ZoneEffect("outside", None, 1.7, 0.1),)
    report = report_of(dicom_phantoms["dx"], why=[replace(one, zone_effects=outside)])
    draw_finding(report, report.findings[0])
    assert (
        "Strongest in the patient's right lower zone (41% of the positive attribution); hiding "
        "whole regions says the area outside the thorax instead."
    ) in written


def test_a_negative_number_that_prints_like_its_threshold_is_marked(
    report_of, dicom_phantoms, prediction, written
):
    # Cardiomegaly's lower threshold is 0.35.
    near = {"cardiomegaly": 0.348, "effusion": 0.2}
    findings = tuple(
        replace(answer, call="negative", probability=near[answer.finding])
        for answer in prediction.findings
        if answer.finding in near
    )
    said = replace(prediction, findings=findings)
    draw_summary(report_of(dicom_phantoms["dx"], why=(), said=said))
    assert {"○ Cardiomegaly <0.35", "○ Pleural effusion 0.20"} < {
        " ".join(line.split()[:-1]) for line in written
    }


def test_long_words_push_nothing_out_of_the_picture(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    foot = slice(HEIGHT - 170, HEIGHT), slice(SIDE, WIDTH)
    longer = replace(
        report,
        findings=tuple(
            replace(entry, reason="Pneumonoultramicroscopic" * 30 + " and so on" * 80)
            for entry in report.findings * 6
        ),
    )
    usual, crowded = draw_summary(report), draw_summary(longer)
    assert np.array_equal(crowded[foot], usual[foot])
    assert not np.array_equal(crowded[: foot[0].start], usual[: foot[0].start])
    # The margin at the right stays free.
    assert (crowded[BANNER + 2 :, -20:] == crowded[-1, -1]).all()


def many(report, n):
    """The report with so many findings."""
    return replace(report, findings=(report.findings * (n // 4 + 1))[:n])


@pytest.mark.parametrize("n", [4, 16, 34, 90])
def test_a_finding_that_has_no_room_in_the_summary_is_counted(
    n, report_of, dicom_phantoms, written
):
    report = many(report_of(dicom_phantoms["dx"]), n)
    failed = tuple(replace(gate, passed=False) for gate in report.gates)
    picture = draw_summary(replace(report, gates=failed))
    # A row is its sign, name, number and colour; the foot has no sign.
    rows = [line for line in written if line[0] in wording.MARKS.values() and "#" in line]
    told = re.findall(r"and (\d+) more, see the report", "\n".join(written))
    n_left_out = int(told[0]) if n > 16 else 0
    assert len(rows) + n_left_out == n
    assert any(line.startswith("Read with caution") for line in written)
    assert any(line.startswith("Numbers: probability") for line in written)
    assert picture.shape == (HEIGHT, WIDTH, 3)


def test_what_is_written_first_is_drawn_however_many_findings_there_are(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    failed = replace(report, gates=(Gate("lateral-view", "warning", False, ""),))
    few, many_ = draw_summary(many(failed, 16)), draw_summary(many(failed, 90))
    # Caution, legend and the first rows stand where they do with few.
    head = slice(BANNER, BANNER + 330), slice(SIDE, WIDTH)
    assert np.array_equal(few[head], many_[head])
    assert not np.array_equal(many_, draw_summary(many(replace(failed, gates=()), 90)))


@pytest.mark.parametrize("name", ["◆ Enlarged cardiomediastinum", "Model " + "x" * 300])
def test_a_name_that_is_too_long_is_smaller_or_ends_with_an_ellipsis(name, monkeypatch):
    drawn = []
    panel = capture._Panel(ImageDraw.Draw(Image.new("RGB", (WIDTH, HEIGHT))))
    monkeypatch.setattr(panel.draw, "text", lambda place, text, *rest, **more: drawn.append(text))
    panel.row(name, "0.55", "white")
    assert drawn[0] == name or (drawn[0].endswith("…") and name.startswith(drawn[0][:-1]))
    assert (drawn[0] == name) == (len(name) < 40)


def test_an_answer_without_thresholds_is_not_called(report_of, dicom_phantoms, uncalled, written):
    report = report_of(dicom_phantoms["dx"], said=uncalled)
    draw_summary(report)
    assert {"□ Pneumonia 0.87*", "○ Pneumothorax 0.01*"} < {
        " ".join(line.split()[:-1]) for line in written
    }
    assert "▲ positive ◆ indeterminate □ not called ○ negative" in written
    assert any("* uncalibrated." in line for line in written)
    written.clear()
    draw_finding(report, next(one for one in report.findings if one.finding.key == "pneumonia"))
    assert written[1:3] == ["□ Not called", "Uncalibrated probability 0.87"]
    assert not any("hreshold" in line for line in written)


def test_the_prevalence_that_a_probability_supposes_stands_beside_it(
    report_of, dicom_phantoms, rare, written
):
    report = report_of(dicom_phantoms["dx"], said=rare)
    draw_summary(report)
    assert (
        "Numbers: probability at a supposed prevalence of 8.3%, where one is known. * "
        "uncalibrated. No other finding was looked for."
    ) in written
    written.clear()
    draw_finding(report, next(one for one in report.findings if one.finding.key == "pneumonia"))
    at = written.index("Calibrated probability 0.87")
    assert written[at + 1] == "At a supposed prevalence of 8.3%"


def test_a_header_that_says_little_is_enough(report_of, bad_header_path, errors_of):
    report = report_of(bad_header_path)
    assert report.scan.patient_orientation is None
    for dataset in captures(report).values():
        assert errors_of(dataset) == []
        assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎"
        assert dataset.StudyInstanceUID == dcmread(bad_header_path).StudyInstanceUID


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("Laterality", "R", True),
        ("Laterality", "B", False),
        ("PatientOrientation", ["R", "F"], True),
        ("PatientOrientation", ["CR", "X"], False),
    ],
)
def test_only_what_the_standard_knows_is_copied(
    keyword, value, kept, report_of, dicom_phantoms, tmp_path, errors_of
):
    dataset = dcmread(dicom_phantoms["cr-monochrome1"])
    setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "a.dcm")
    summary = captures(report_of(tmp_path / "a.dcm"))["sc-summary"]
    assert (summary.get(keyword) == value) == kept
    assert errors_of(summary) == []


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, {"BodyPartExamined": "CHEST"}),
        ({"Laterality": "R"}, {"Laterality": "R"}),
        # Whether it is paired is not known, so that the attribute must be there.
        ({"BodyPartExamined": ""}, {"Laterality": None}),
    ],
)
def test_a_side_is_said_only_where_the_source_has_one(
    stated, said, report_of, changed_phantom, errors_of
):
    path = changed_phantom(lambda dataset: [setattr(dataset, *pair) for pair in stated.items()])
    for dataset in captures(report_of(path)).values():
        keywords = ("Laterality", "BodyPartExamined")
        assert {one: dataset[one].value or None for one in keywords if one in dataset} == said
        assert errors_of(dataset) == []


def test_a_lossy_source_stays_lossy(report_of, dicom_phantoms, tmp_path, errors_of):
    dataset = dcmread(dicom_phantoms["dx"])
    assert captures(report_of(dicom_phantoms["dx"]))["sc-summary"].LossyImageCompression == "00"
    dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 12
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.save_as(tmp_path / "lossy.dcm")
    assert not all(gate.passed for gate in read_radiograph(tmp_path / "lossy.dcm").gates)
    made = captures(report_of(tmp_path / "lossy.dcm"))
    for dataset in made.values():
        assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 12)
        assert errors_of(dataset) == []


def test_a_second_run_gives_the_same_bytes(report_of, dicom_phantoms, tmp_path):
    files = []
    for run in "ab":
        for name, dataset in captures(report_of(dicom_phantoms["dx"])).items():
            dataset.save_as(tmp_path / f"{run}-{name}", enforce_file_format=True)
        files.append({path.name[2:]: path.read_bytes() for path in tmp_path.glob(f"{run}-*")})
    assert files[0] == files[1]
    assert len(files[0]) == 3

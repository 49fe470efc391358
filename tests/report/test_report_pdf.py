"""The PDF read back by pypdf, which had no part in writing it."""

import re
import socket
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from itertools import pairwise
from threading import Thread

import pytest
from pypdf import PdfReader
from pypdf.generic import DictionaryObject

from medllm.dicom.header import Identity
from medllm.errors import ReportError
from medllm.findings import FINDINGS
from medllm.models.card import Question
from medllm.report import build_report, html, json, pdf

pytestmark = pytest.mark.usefixtures("pango")

MADE_AT = "2025-03-14T15:09:26+00:00"


def _squashed(text: str) -> str:
    """Lines are broken elsewhere on paper than in HTML."""
    return re.sub(r"\s", "", text)


class Sheets:
    """What stands in a PDF, and what its structure says of it."""

    def __init__(self, content: bytes) -> None:
        self.reader = PdfReader(BytesIO(content))
        self.root = self.reader.trailer["/Root"]
        self.texts = [page.extract_text() for page in self.reader.pages]
        self.text = _squashed("".join(self.texts))
        self.elements = list(self._walk(self.root["/StructTreeRoot"]))

    def _walk(self, element):
        kids = element.get("/K", [])
        for kid in kids if isinstance(kids, list) else [kids]:
            kid = kid.get_object()
            if isinstance(kid, DictionaryObject) and "/S" in kid:
                yield kid
                yield from self._walk(kid)

    def of_type(self, name):
        return [element for element in self.elements if element["/S"] == name]

    def figures(self, page):
        """Alternative texts of the pictures on a page."""
        at = self.reader.pages[page].indirect_reference
        return [one.get("/Alt") for one in self.of_type("/Figure") if one.raw_get("/Pg") == at]

    def shows(self, text):
        return _squashed(text) in self.text


class Rows(HTMLParser):
    """The text of each table row, without names of drawings and rows to be filled in."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.rows: list[str] = []
        self._silent = self._in_row = False
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        if tag == "tr" and "data-finding" not in dict(attrs):
            self._in_row = True
            self.rows.append("")
        self._silent = self._silent or tag == "title"

    def handle_endtag(self, tag):
        self._in_row = self._in_row and tag != "tr"
        self._silent = self._silent and tag != "title"

    def handle_data(self, data):
        if self._in_row and not self._silent:
            self.rows[-1] += data


@pytest.fixture(scope="module")
def content(report) -> bytes:
    return pdf.encode(report)


@pytest.fixture(scope="module")
def sheets(content) -> Sheets:
    return Sheets(content)


@pytest.fixture(scope="module")
def compared_sheets(compared) -> Sheets:
    return Sheets(pdf.encode(compared))


@pytest.fixture(scope="module")
def plain(scan, prediction):
    """A PNG file without explanation."""
    bare = type(scan)(pixels=scan.pixels, path=scan.path, file_format="png", sha256=scan.sha256)
    return build_report(bare, replace(prediction, sop_instance_uid=None, warnings=()))


@pytest.fixture(scope="module")
def plain_sheets(plain) -> Sheets:
    return Sheets(pdf.encode(plain, "Letter"))


@pytest.mark.parametrize("kind", ["report", "compared"])
def test_every_row_of_every_table_of_the_html_stands_in_the_pdf(
    kind, request, sheets, compared_sheets
):
    rows = Rows(html.encode(request.getfixturevalue(kind))).rows
    seen = {"report": sheets, "compared": compared_sheets}[kind]
    assert len(rows) > 50
    assert [row for row in rows if not seen.shows(row)] == []


def test_impression_checks_and_verdicts_are_those_of_the_json(report, sheets):
    content = json.as_dict(report)
    assert all(_squashed(one) in _squashed(sheets.texts[0]) for one in content["impression"])
    assert all(sheets.shows(sentence) for sentence in content["limitations"])
    explained = [entry["explanation"] for entry in content["findings"] if "explanation" in entry]
    assert [one["verdict"] for one in explained] == ["supported", "do not use", "weak"]
    for one in explained:
        assert sheets.shows(f"Verdict: {one['verdict']}.")
        for check in one["checks"]:
            assert sheets.shows(check["name"])
            assert sheets.shows(check["sentence"])


def test_the_first_page_answers_by_itself(sheets):
    text = _squashed(sheets.texts[0])
    order = [
        "AI output, research use only, not verified by a radiologist",
        "54 years",
        "R-183c2049131c",
        "Impression",
        "Read with caution: 1 of 3 input checks not passed: lossy compression.",
        "Pneumonia: positive",
        "Cardiomegaly: positive",
        "Pleural effusion: indeterminate",
        "Negative, with probability: pneumothorax",
        "Not for diagnostic reading.",
        "Input checks",
    ]
    places = [text.index(_squashed(part)) for part in order]
    assert places == sorted(places)
    assert sheets.figures(0) == [
        "The radiograph that was scored, as displayed to the model.",
        "The radiograph below the map.",
        "Attribution map for pneumonia: strongest in the patient's right lower zone (41% of the "
        "positive attribution); hiding whole regions says the same.",
        "Contour lines of the map.",
        "Colour bar: blue to cyan lowers the finding, orange to yellow raises it.",
    ]


def test_banner_number_and_report_stand_on_each_page(sheets):
    n = len(sheets.texts)
    assert n > 3
    for number, text in enumerate(sheets.texts, start=1):
        assert "AI output, research use only, not verified by a radiologist" in text
        assert f"{number} of {n}" in text
        assert "Report R-183c2049131c" in text


def test_the_sections_stand_in_reading_order(sheets):
    headings = (
        *("Impression", "Input checks", "Findings", "Why the model said so"),
        *("What the model was asked", "Limitations", "The model", "Provenance"),
        "Reviewed by",
    )
    outline = [one.title for one in sheets.reader.outline[1] if not isinstance(one, list)]
    assert outline == list(headings)


def test_it_is_tagged_as_pdf_ua_asks(sheets):
    assert sheets.root["/MarkInfo"]["/Marked"]
    assert sheets.root["/Lang"] == "en"
    assert sheets.root["/ViewerPreferences"]["/DisplayDocTitle"]
    xmp = sheets.root["/Metadata"].get_data().decode()
    assert 'pdfuaid:part="1"' in xmp
    assert "<xmp:CreateDate>2025-03-14T15:09:26+00:00</xmp:CreateDate>" in xmp
    assert all(one.get("/Alt") for one in sheets.of_type("/Figure"))
    assert all(page["/Tabs"] == "/S" for page in sheets.reader.pages)
    # No level of heading is left out on the way down.
    levels = [int(one["/S"][2:]) for one in sheets.elements if re.fullmatch("/H[1-6]", one["/S"])]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    # A list holds items only, and each cell of a table knows its headers.
    for one in sheets.of_type("/L"):
        assert {kid.get_object()["/S"] for kid in one["/K"]} == {"/LI"}
    cells = [one for one in sheets.of_type("/TD") if "/A" in one]
    assert len(cells) > 100
    assert all(one["/A"].get("/Headers") for one in cells)


def test_title_author_subject_and_time_are_in_the_metadata(sheets, report):
    told = sheets.reader.metadata
    assert told.title == "AI findings on a chest radiograph, report R-183c2049131c"
    assert told.author == f"medllm {report.software['medllm']}, model hand-made 1.0"
    assert told.subject == "AI output, research use only, not verified by a radiologist"
    assert told.creation_date.isoformat() == MADE_AT


def test_all_fonts_are_within(sheets):
    fonts = [font.get_object() for font in sheets.reader.pages[0]["/Resources"]["/Font"].values()]
    within = [font["/DescendantFonts"][0]["/FontDescriptor"] for font in fonts]
    # The same on each machine, and no font of the system's.
    assert {one["/FontName"].partition("+")[2] for one in within} == {
        "Report-Sans",
        "Report-Sans-Bold",
        "Report-Mono",
    }
    assert all("/FontFile2" in one for one in within)


def test_the_same_report_gives_the_same_bytes(report, content):
    assert pdf.encode(report) == content


def test_pages_are_of_the_paper_asked_for(sheets, plain_sheets):
    for seen, size_mm in ((sheets, (210, 297)), (plain_sheets, (215.9, 279.4))):
        for page in seen.reader.pages:
            shown = float(page.mediabox.width), float(page.mediabox.height)
            assert shown == pytest.approx([length / 25.4 * 72 for length in size_mm], abs=0.1)


def test_a_png_without_explanation_is_shown_without_map(plain_sheets):
    seen = plain_sheets
    assert seen.shows("No map is drawn. No explanation was asked for.")
    assert seen.shows("SOP Instance UID") is False
    assert seen.figures(0)[0].startswith("The radiograph that was scored")
    assert not any("map" in one["/Alt"] for one in seen.of_type("/Figure"))


def test_a_map_that_must_not_be_used_is_nowhere_drawn(scan, prediction, explanations):
    report = build_report(
        scan, prediction, explanations[1:2], identity=Identity(patient_name="Иванов^Иван")
    )
    seen = Sheets(pdf.encode(report))
    assert "No map is drawn. Cardiomegaly: it failed the deletion check, without" in " ".join(
        seen.texts[0].split()
    )
    assert seen.shows("The map is not drawn. Blurring the marked area changes the answer no more")
    assert not any("map" in one["/Alt"] for one in seen.of_type("/Figure"))
    # A name in another script, and on the first page only.
    assert "Иванов^Иван" in seen.texts[0]
    assert not any("Иванов" in text for text in seen.texts[1:])
    assert "Иванов" not in str(seen.reader.metadata)


def test_a_contrast_and_other_methods_are_shown(compared_sheets):
    alts = [one["/Alt"] for one in compared_sheets.of_type("/Figure")]
    assert (
        "Attribution map for pleural effusion rather than cardiomegaly: strongest in the patient's "
        "right lower zone (41% of the positive attribution); hiding whole regions says the same."
    ) in alts
    assert [alt.split(":")[0] for alt in alts if alt.startswith("Attribution map by")] == [
        f"Attribution map by {method}" for method in ("integrated-gradients", "occlusion", "rise")
    ]
    assert compared_sheets.shows("Why pleural effusion rather than cardiomegaly")
    assert compared_sheets.shows("What is explained here is the difference, \N{MINUS SIGN}2.21")


def test_where_much_is_raised_the_picture_is_still_on_the_first_page(
    scan, prediction, explanations
):
    keys = [key for key in FINDINGS if key != "pneumonia"][:13]
    first = next(answer for answer in prediction.findings if answer.finding == "pneumonia")
    questions = (prediction.card.questions[0], *(Question(key, "Is it?") for key in keys))
    said = replace(
        prediction,
        card=replace(prediction.card, questions=questions),
        findings=(first, *(replace(first, finding=key) for key in keys)),
    )
    seen = Sheets(pdf.encode(build_report(scan, said, explanations[:1])))
    assert seen.texts[0].count(": positive (") == 14
    assert any(alt.startswith("Attribution map for pneumonia") for alt in seen.figures(0))


def test_no_network_and_no_file_is_asked_for(plain, monkeypatch, tmp_path):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    secret = tmp_path / "secret.css"
    secret.write_text('body::before { content: "secret" }')
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/picture.png"
        style = f'@import "{secret.as_uri()}"; body {{ background: url("{address}") }}'
        with socket.create_connection(server.server_address, timeout=5):
            pass  # it does listen
        own = pdf.asset
        monkeypatch.setattr(pdf, "asset", lambda name: style + own(name))
        seen = Sheets(pdf.encode(plain))
        server.shutdown()
    assert asked == []
    assert "secret" not in seen.text


def test_a_letter_that_no_font_has_is_refused_and_not_told(scan, prediction, caplog):
    letter = "\U0010fffd"  # for private use
    named = build_report(scan, prediction, identity=Identity(patient_name=f"Doe{letter}"))
    with pytest.raises(ReportError, match=r"script: private.*fonts-noto") as caught:
        pdf.encode(named)
    assert caught.value.code == "missing-font"
    assert letter not in str(caught.value) + caplog.text
    assert "Doe" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("cause", ["ImportError", "OSError"])
def test_without_its_libraries_it_says_how_to_get_them(report, cause, monkeypatch, tmp_path):
    # WeasyPrint raises OSError where Pango is missing.
    (tmp_path / "weasyprint.py").write_text(f"raise {cause}('cannot load library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    with pytest.raises(ReportError, match=r"pip install 'medllm\[pdf\]'.*libpango-1.0-0") as caught:
        pdf.encode(report)
    assert caught.value.code == "missing-library"
    assert "\n" not in str(caught.value)


def test_both_papers_are_formats_of_their_own(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "encode", lambda _, paper="A4": paper.encode())
    plain.write(tmp_path, ["pdf", "pdf-letter"])
    assert (tmp_path / "report.pdf").read_text() == "A4"
    assert (tmp_path / "report-letter.pdf").read_text() == "Letter"


def test_making_a_pdf_lets_no_reader_take_pictures_that_are_cut_off():
    # In a process of its own: WeasyPrint changes Pillow when it is first imported.
    code = (
        "from PIL import ImageFile; from medllm.report.pdf import _weasyprint; _weasyprint(); "
        "print(ImageFile.LOAD_TRUNCATED_IMAGES)"
    )
    told = subprocess.run(  # noqa: S603 - this interpreter, a line of ours
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["False"]


def test_beside_the_picture_stands_why_no_map_could_be_made(scan, prediction):
    why = "the model has no layer that the method could use."
    refused = dict.fromkeys(("pneumonia", "effusion"), why)
    first = Sheets(pdf.encode(build_report(scan, prediction, refused=refused))).texts[0]
    said = f"No map is drawn. Pneumonia, Pleural effusion. Not explained: {why}"
    assert _squashed(said) in _squashed(first)
    assert "Noexplanationwasaskedfor" not in _squashed(first)
    none = Sheets(pdf.encode(build_report(scan, prediction))).texts[0]
    assert "Nomapisdrawn.Noexplanationwasaskedfor." in _squashed(none)

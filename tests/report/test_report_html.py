import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Gate
from medllm.explanation.overlay import display_image
from medllm.explanation.record import ZoneEffect
from medllm.models.card import RECALIBRATED
from medllm.report import build_report, wording
from medllm.report import html as encode_html
from medllm.report import json as encode_json
from medllm.report.page import render_page

ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags with attributes in order, all text, and the text of each table row."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.rows: list[str] = []
        self._raw = self._in_row = False
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("style", "script")
        if tag == "tr":
            self._in_row = True
            self.rows.append("")

    def handle_endtag(self, tag):
        self._raw = False
        if tag == "tr":
            self._in_row = False

    def handle_data(self, data):
        if not self._raw:
            self.text += data
            if self._in_row:
                self.rows[-1] += data

    def having(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def policy(self):
        return next(meta["content"] for meta in self.having("meta") if "http-equiv" in meta)


@pytest.fixture(scope="module")
def content(report) -> bytes:
    return encode_html.encode(report)


@pytest.fixture(scope="module")
def page(content) -> Page:
    return Page(content)


def _picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_both_formats_show_the_same_numbers(report, page):
    for entry in json.loads(encode_json.encode(report))["findings"]:
        rows = [row for row in page.rows if row.strip().startswith(entry["name"])]
        shown = " ".join(rows)
        assert wording.probability(entry["probability"]) in shown
        assert wording.signed(entry["log_odds"]) in shown
        assert wording.odds(entry["log_odds"]) in shown
        assert wording.probability(entry["calibration"]["low"]) in shown
        assert wording.probability(entry["calibration"]["high"]) in shown
        for measurement in entry["measurements"]:
            for key in ("sensitivity", "specificity", "auroc", "brier", "ece"):
                figure = measurement[key]
                assert f"{figure['value']:.2f} ({figure['low']:.2f} to " in shown
        if "explanation" in entry:
            assert f"Verdict: {entry['explanation']['verdict']}." in page.text
            assert all(check["sentence"] in page.text for check in entry["explanation"]["checks"])


def test_both_formats_say_the_same_impression(report, page):
    text = " ".join(page.text.split())
    for sentence in json.loads(encode_json.encode(report))["impression"]:
        assert sentence in text


def test_failed_checks_are_named_in_words_and_codes_stand_in_the_last_table(page):
    text = " ".join(page.text.split())
    assert "1 of 3 input checks not passed: lossy compression. See" in text
    assert any(row.startswith("lossy compressionlossynot passed") for row in page.rows)


def test_the_prevalence_that_a_probability_supposes_is_told(scan, prediction, page):
    (row,) = [row for row in page.rows if row.startswith("Pneumonia") and "1.400" in row]
    assert row.startswith("Pneumonianot known1.400")
    first = prediction.card.questions[0]
    moved = replace(first, calibration=replace(first.calibration, prevalence=0.083))
    card = replace(prediction.card, questions=(moved, *prediction.card.questions[1:]))
    seen = Page(encode_html.encode(build_report(scan, replace(prediction, card=card))))
    assert any(row.startswith("Pneumonia8.3%1.400") for row in seen.rows)


def test_other_wordings_and_a_text_written_before_the_answer_are_told(scan, prediction, page):
    first, *others = prediction.findings
    asked = replace(first, prompt=f"Any? It shows {ATTACK}. So:", paraphrases=("Do you see it?",))
    wordy = replace(
        prediction,
        card=replace(prediction.card, reasoning_tokens=64),
        findings=(asked, *others),
    )
    report = build_report(scan, wordy)
    told = Page(encode_html.encode(report))
    assert f"It shows {ATTACK}. So:" in told.text
    assert "in the same prompt: Do you see it? The log-odds are the mean" in told.text
    assert "the model wrote a text" in told.text
    assert "no text is generated" not in told.text
    assert "no text is generated" in page.text
    (entry,) = (
        one
        for one in json.loads(encode_json.encode(report))["findings"]
        if one["finding"] == first.finding
    )
    assert entry["paraphrases"] == ["Do you see it?"]


def test_the_test_set_stands_once_a_table(page):
    findings = [row for row in page.rows if "0.84 (0.80 to 0.88)" in row]
    assert len(findings) == 3
    assert not any("phantom set" in row for row in findings)
    assert "Test set: phantom set, test part." in " ".join(page.text.split())
    # Of 612 images, 203 with the finding.
    assert all("n = 203" in row and "n = 409" in row for row in findings)


def test_the_sections_stand_in_reading_order(page):
    headings = [attributes["id"] for attributes in page.having("h2")]
    assert headings == [
        "impression",
        "checks",
        "findings",
        "explanations",
        "evidence",
        "limitations",
        "model",
        "provenance",
        "reviewer",
    ]


def test_the_banner_stands_before_everything(page):
    assert (
        page.text.split("Chest radiograph")[0]
        .strip()
        .endswith("AI output, research use only, not verified by a radiologist")
    )


def test_the_picture_shown_is_the_radiograph(page, scan):
    image = page.having("img")[0]
    np.testing.assert_array_equal(_picture(image["src"]), display_image(scan))


def test_a_map_is_drawn_over_each_explained_finding_except_those_that_must_not_be_used(
    page, report
):
    drawn = {image["id"]: image for image in page.having("img") if "id" in image}
    assert set(drawn) == {"overlay-pneumonia", "overlay-effusion"}
    pneumonia = report.findings[0]
    np.testing.assert_array_equal(
        _picture(drawn["overlay-pneumonia"]["src"]), pneumonia.overlay.rgba
    )
    assert "The map is not drawn. Blurring the marked area changes" in page.text


def test_the_alternative_text_says_where_the_attribution_lies(page):
    alt = next(image["alt"] for image in page.having("img") if "id" in image)
    assert alt == (
        "Attribution map for pneumonia: strongest in the patient's right lower zone "
        "(41% of the positive attribution); hiding whole regions says the same."
    )
    assert all(image.get("alt") for image in page.having("img"))


def test_the_colour_bar_prints_its_scale_and_the_maps_own_range(page, report):
    overlay, values = report.findings[0].overlay, report.findings[0].explanation.map.values
    assert f"raises {wording.signed(overlay.scale, 3)}" in page.text
    lowest, highest = (wording.signed(value, 3) for value in (values.min(), values.max()))
    assert f"this map runs from {lowest} to {highest}" in page.text


def test_colours_that_end_before_the_maps_values_are_told(scan, prediction, explanations):
    def told(factor):
        own = explanations[0].map
        grid = replace(own, values=own.values / np.abs(own.values).max() * factor)
        report = build_report(scan, prediction, [replace(explanations[0], map=grid)])
        paged = Page(render_page(report, "", paged=True).encode()).text
        return [
            text.count("Beyond the bar's ends the colour is that of its end.")
            for text in (Page(encode_html.encode(report)).text, paged)
        ]

    scale = 100 / explanations[0].map.values.size
    assert told(0.9 * scale) == [0, 0]
    assert told(1.1 * scale) == [1, 2]  # on paper the first page has a bar, too


def test_the_checks_are_folded_below_how_many_were_passed_where_the_map_may_be_used(content):
    text = content.decode()
    folds = re.findall(r"<details( open)?>\s*<summary>(.*?)</summary>", text)
    assert folds == [
        ("", "Checks: 2 of 2 passed"),
        (" open", "Checks: 1 of 2 passed; failed: deletion"),
        (" open", "Checks: 1 of 2 passed; failed: deletion"),
    ]


def test_the_policy_admits_the_pages_own_style_and_script_and_no_more(content, page):
    assert page.policy.startswith("default-src 'none'; img-src data:; ")
    assert page.policy.endswith("; base-uri 'none'; form-action 'none'")
    assert "unsafe" not in page.policy
    for tag in ("style", "script"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", content.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.policy
    for _, attributes in page.tags:
        # The policy would block these, so that the page would look other than it was written.
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_the_page_loads_nothing(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")


def test_the_page_can_be_read_without_seeing_it(page):
    assert page.having("html") == [{"lang": "en"}]
    assert len(page.having("h1")) == 1
    assert all(header["scope"] in ("col", "row") for header in page.having("th"))
    labels = {label["for"] for label in page.having("label") if "for" in label}
    sliders = [field for field in page.having("input") if field["type"] == "range"]
    assert {slider["id"] for slider in sliders} == labels
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_finding_is_reviewed_as_agree_disagree_or_edit(page):
    choices = [field for field in page.having("input") if field["type"] == "radio"]
    assert [choice["value"] for choice in choices[:3]] == ["agree", "disagree", "edit"]
    assert len({choice["name"] for choice in choices}) == 4


def test_what_a_header_says_is_text_and_not_markup(scan, prediction, explanations):
    hostile = replace(
        scan,
        view_position=ATTACK,
        modality=ATTACK,
        series_instance_uid=ATTACK,
        pipeline=(replace(scan.pipeline[0], detail=ATTACK),),
        gates=(Gate("x", "warning", False, ATTACK),),
    )
    card = replace(prediction.card, description=ATTACK, limitations=(ATTACK,))
    report = build_report(
        hostile,
        replace(prediction, card=card),
        [replace(explanations[0], baseline=ATTACK, zones_from='"><script>alert(2)</script>')],
        identity=Identity(patient_name=ATTACK),
    )
    page = Page(encode_html.encode(report))
    assert len(page.having("script")) == 1
    assert page.text.count(ATTACK) >= 8


def test_identity_is_there_only_when_asked_for(scan, prediction, page):
    assert "pseudonymous" in page.text
    named = build_report(
        scan, prediction, identity=Identity(patient_name="DOE^JANE", accession_number="A-17")
    )
    text = Page(encode_html.encode(named)).text
    assert "DOE^JANE" in text
    assert "A-17" in text
    assert "pseudonymous" not in text
    assert "Patient id" not in text  # not in the header


def test_the_path_is_left_out_because_it_can_hold_a_name(content):
    assert b"a.dcm" not in content


def test_the_patients_side_is_marked_where_the_orientation_is_known(scan, prediction, page):
    assert page.text.count("patient's R") == 5  # the radiograph, and two pairs
    turned = replace(scan, patient_orientation=("R", "F"))
    assert "patient's L" in Page(encode_html.encode(build_report(turned, prediction))).text
    unknown = replace(scan, patient_orientation=None)
    assert "patient's R" not in Page(encode_html.encode(build_report(unknown, prediction))).text


def test_each_regions_bar_is_as_long_as_its_value_and_on_its_side(content, explanations):
    text = content.decode()
    start = text.index("What each region does to the answer")
    part = text[start : text.index("Is this explanation to be trusted?", start)]
    bars = [
        (float(x), float(width))
        for x, width in re.findall(r'<rect x="([\d.]+)" y="6" width="([\d.]+)"', part)
    ]
    values = [part.shapley for part in explanations[0].zone_effects]
    most = max(abs(value) for value in values)
    for (x, width), value in zip(bars, values, strict=True):
        assert width == pytest.approx(196 * abs(value) / most)
        assert x == pytest.approx(200 if value > 0 else 200 - width)
    assert wording.signed(sum(values)) in part


def test_with_each_region_blurred_the_answer_is_calibrated_and_called(report, compared, page):
    rows = [" ".join(row.split()) for row in page.rows]
    # 0.12 / 1.4 + 0.12 and 1.71 / 1.4 + 0.12 are log-odds of 0.55 and 0.79; thresholds .38, .62.
    assert "the patient's right lower zone+1.60 +0.120.55, indeterminate" in rows
    assert "the mediastinum (heart included)\N{MINUS SIGN}0.40 +1.710.79, positive" in rows
    assert "calibrated probability and call with this region alone blurred, instead of" in page.text
    # Of a difference there is neither.
    rather = Page(encode_html.encode(compared))
    seen = [row for row in rather.rows if row.startswith("the patient's right lower zone+1.60")]
    assert [row.removesuffix("+0.12") == row for row in seen] == [True, False]
    assert "the difference's log-odds with this region alone blurred" in rather.text


def test_what_was_measured_without_the_map_is_shown_where_the_map_is_refused(
    scan, prediction, explanations
):
    unknown = replace(scan, patient_orientation=None)
    page = Page(encode_html.encode(build_report(unknown, prediction, explanations[1:2])))
    assert not [image for image in page.having("img") if "id" in image]
    assert "Where, in words" not in page.text
    assert "without the map that is not drawn. Sides are the patient's, if the image's" in page.text
    rows = [" ".join(row.split()) for row in page.rows]
    assert any(row.startswith("the patient's right lower zone+1.60 +0.12") for row in rows)
    assert "<image>+1.87" in rows


def test_that_the_contrast_check_was_not_made_stands_with_the_checks(
    scan, prediction, explanations, page
):
    assert "not made" not in page.text
    card = replace(prediction.card, questions=prediction.card.questions[:1])
    pneumonia = prediction["pneumonia"]
    alone = replace(prediction, card=card, findings=(pneumonia,))
    seen = Page(encode_html.encode(build_report(scan, alone, explanations[:1])))
    assert "Checks: 2 of 2 passed; contrast not made" in seen.text
    (row,) = [row for row in seen.rows if row.startswith("contrast")]
    assert row.startswith("contrastnot madeThe model answers for no finding that is unlike")


def test_the_regions_sides_are_said_to_be_the_patients_only_where_they_are(
    scan, prediction, explanations, page
):
    assert "Sides are the patient's." in page.text
    unknown = replace(scan, patient_orientation=None)
    seen = Page(encode_html.encode(build_report(unknown, prediction, explanations)))
    assert "Sides are the patient's." not in seen.text
    assert "attribution), if the image's left is the patient's right; hiding" in seen.text


@pytest.mark.parametrize(
    ("file_format", "modality", "said"),
    [("dicom", "CR", ("CR", "DICOM")), ("jpeg", None, ("not stated", "JPEG"))],
)
def test_the_format_of_a_file_is_not_its_modality(scan, prediction, file_format, modality, said):
    read = replace(scan, file_format=file_format, modality=modality)
    content = encode_html.encode(build_report(read, prediction)).decode()
    assert f"<dt>Modality</dt><dd>{said[0]}</dd>" in content
    assert f"File format</th><td><code>{said[1]}</code></td>" in content


def test_a_lateral_view_is_called_one_and_has_no_sides(scan, prediction, explanations):
    gates = (
        Gate("lateral-view", "warning", False, "The header says lateral."),
        Gate("view-unknown", "warning", True, "the view is lateral"),
    )
    lateral = replace(scan, view_position=None, gates=gates)
    said = replace(prediction, warnings=())
    content = encode_html.encode(build_report(lateral, said, explanations)).decode()
    assert "<dt>View</dt><dd>lateral</dd>" in content
    assert "patient's R" not in content
    assert "attribution), if the view were frontal; hiding whole regions" in content


def test_where_two_ways_disagree_on_the_place_it_is_said_below_both(scan, prediction, explanations):
    first = explanations[0]
    outside = ZoneEffect("outside", None, 1.7, 0.1)
    other = replace(first, zone_effects=(outside, *first.zone_effects))
    text = Page(encode_html.encode(build_report(scan, prediction, [other]))).text
    at = text.index("The two disagree on the place")
    assert text.index("What each region does to the answer") < at
    assert at < text.index("Is this explanation to be trusted?")


def test_other_methods_stand_beside_the_first_on_one_scale(compared, page):
    assert "The same answer by other methods" not in page.text
    seen = Page(encode_html.encode(compared))
    alts = [image["alt"] for image in seen.having("img")]
    beside = [alt.split(":")[0] for alt in alts if alt.startswith("Attribution map by ")]
    assert beside == [
        f"Attribution map by {method}" for method in ("integrated-gradients", "occlusion", "rise")
    ]
    told = [" ".join(row.split()) for row in seen.rows]
    methods = ("occlusion", "rise", "grad-cam", "attention-rollout")
    rows = {name: row for name in methods for row in told if row.startswith(name)}
    assert "supported strongest in the patient's right lower zone" in rows["occlusion"]
    assert "0.86, much alike" in rows["occlusion"]
    assert "weak" in rows["rise"]
    assert "\N{MINUS SIGN}0.19, unlike" in rows["rise"]
    assert "do not use not drawn deletion 0.12, unlike" in rows["grad-cam"]
    assert rows["attention-rollout"].endswith("It refused: the encoder gives no attention weights.")
    assert "One scale for all of these maps" in seen.text


def test_a_picture_beside_is_the_map_at_a_third_of_its_size(compared):
    seen = Page(encode_html.encode(compared))
    small = next(i for i in seen.having("img") if i["alt"].startswith("Attribution map by occl"))
    overlay = compared.findings[0].others[0].overlay
    np.testing.assert_array_equal(_picture(small["src"]), overlay.rgba[1::3, 1::3])


def test_a_contrast_says_in_words_why_this_rather_than_that(compared, page):
    assert "rather than" not in page.text
    content = encode_html.encode(compared)
    assert b'effusion">Why pleural effusion rather than cardiomegaly</h3>' in content
    text = " ".join(Page(content).text.split())
    assert "Why pleural effusion rather than cardiomegaly (difference of log-odds" in text
    assert "What is explained here is the difference, \N{MINUS SIGN}2.21" in text
    assert "half of what raised the difference" in text
    assert "yes against no, pleural effusion rather than cardiomegaly" in text
    # The call is the finding's, and of the difference there is none.
    badge = '<span class="badge indeterminate">◆ Pleural effusion: indeterminate</span>'
    article = content.decode().partition('aria-labelledby="finding-effusion"')[2]
    assert badge in article.partition("</header>")[0]


def test_on_paper_a_refused_contrast_is_not_called_the_finding(scan, prediction, compared):
    (rather,) = (
        entry.explanation for entry in compared.findings if entry.finding.key == "effusion"
    )
    report = build_report(scan, prediction, [replace(rather, verdict="do not use")])
    page = Page(render_page(report, "", paged=True).encode())
    assert "No map is drawn. Why pleural effusion rather than cardiomegaly: it failed" in page.text


def test_figures_of_a_recalibration_are_under_their_own_heading(scan, prediction, card):
    question, *others = card.questions
    fitted = replace(
        question.measurements[0], test_set=f"Site A; {RECALIBRATED}, 5 folds", subgroup=""
    )
    mixed = replace(card, questions=(replace(question, measurements=(fitted,)), *others))
    plain, again = (
        encode_html.encode(build_report(scan, replace(prediction, card=one))).decode()
        for one in (card, mixed)
    )
    assert "Measured at recalibration" not in plain
    held_out, refitted = again.split("Measured on held-out patients")[1].split(
        "Measured at recalibration"
    )
    assert "Site A" in refitted
    assert "Site A" not in held_out


def test_an_answer_without_thresholds_is_not_called_wherever_it_stands(
    scan, uncalled, explanations
):
    report = build_report(scan, uncalled, explanations)
    page = Page(encode_html.encode(report))
    badges = [one["class"] for one in page.having("span") if "badge" in one.get("class", "")]
    # In the impression, the table of findings, the explanation and the review.
    assert badges.count("badge not-called") == 4
    assert page.text.count("□ Not called") == 4
    (row,) = (row for row in page.rows if "233604007" in row)  # pneumonia's in the table
    assert "0.87 uncalibrated" in " ".join(row.split())
    assert "Probability 0.87; not called" in row
    assert "hreshold" not in row


def test_each_answer_of_the_review_is_named(page, report):
    groups = [one for one in page.having("div") if one.get("role") == "radiogroup"]
    names = [one.get("aria-label") for one in groups]
    assert names == [f"Review of {entry.finding.name}" for entry in report.findings]


def test_the_scale_of_a_map_is_said_to_be_that_of_its_grid(page):
    assert "The scale is the same for every map on a grid of this size;" in page.text


def test_who_does_not_see_the_map_is_told_that_the_two_ways_disagree(
    scan, prediction, explanations
):
    outside = (ZoneEffect("outside", None, 1.7, 0.1),)
    report = build_report(scan, prediction, [replace(explanations[0], zone_effects=outside)])
    page = Page(encode_html.encode(report))
    (alt,) = (one["alt"] for one in page.having("img") if one["alt"].startswith("Attribution map"))
    assert alt.endswith("hiding whole regions says the area outside the thorax instead.")

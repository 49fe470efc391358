import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from medllm.errors import LabelError
from medllm.evaluate import wording
from medllm.evaluate.audits.document import Audits
from medllm.evaluate.audits.wording import READINGS
from medllm.evaluate.document import SubgroupFigures, WorstError
from medllm.evaluate.page import render
from medllm.evaluate.section import Interval
from medllm.findings import FINDINGS
from medllm.report.wording import title

ATTACK = '"><script>alert(1)</script>'
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
VOID = {"meta", "img", "col", "br"}


class Page(HTMLParser):
    """Tags with attributes in order, the text, and each table's cells; unclosed tags fail."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(content.decode())
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("dt", "dd"):
            self.text += " "

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += f" {data}"

    def having(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, table, name):
        return next(row for row in self.tables[table] if row and row[0].strip() == name)


@pytest.fixture(scope="module")
def content(fourteen, make_pictures):
    return render(fourteen, make_pictures(fourteen))


@pytest.fixture(scope="module")
def page(content):
    return Page(content)


def _said(figure: Interval, digits: int = 3) -> tuple[str, ...]:
    return wording.number(figure.value, digits), wording.ends(figure, digits)


def test_every_number_of_the_table_stands_in_the_findings_row(fourteen, page):
    for key, figures in fourteen.findings.items():
        cells = [" ".join(cell.split()) for cell in page.row(0, title(FINDINGS[key]))]
        assert cells[1:] == [
            wording.count(figures.n),
            f"{wording.count(figures.n_positive)} {wording.share(figures.prevalence)}",
            " ".join(_said(figures.auroc)),
            wording.ends(figures.auroc_delong),
            " ".join(_said(figures.auprc)),
            wording.share(figures.supposed_prevalence),
            " ".join(_said(figures.brier)),
            " ".join(_said(figures.ece)),
            " ".join(_said(figures.calibration_slope, 2)),
            " ".join(_said(figures.calibration_intercept, 2)),
        ]
        cells = [" ".join(cell.split()) for cell in page.row(1, title(FINDINGS[key]))]
        assert cells[1:] == [
            wording.number(figures.threshold),
            " ".join(_said(figures.sensitivity)),
            " ".join(_said(figures.specificity)),
            " ".join(_said(figures.positive_predictive_value)),
            " ".join(_said(figures.negative_predictive_value)),
            " ".join(_said(figures.f1)),
        ]


def test_the_averages_stand_below_the_findings(fourteen, page):
    for name in ("macro", "micro"):
        cells = page.row(0, f"{name.capitalize()} average")
        for area, column in (("auroc", 2), ("auprc", 4)):
            expected = _said(getattr(fourteen.averages, f"{name}_{area}"))
            assert tuple(cells[column].split(maxsplit=1)) == expected


def test_the_head_says_what_was_evaluated_and_what_is_no_evidence(fourteen, page):
    head = " ".join(page.text.split("Table 1")[0].split())
    assert head.index("Research use only; not for diagnosis.") < head.index("Split test")
    for words in (
        "Images 25,596",
        "Patients 2,797",
        "of the part train_val: 86,524; view LATERAL: 12",
        "not-an-image: 3; photometric-interpretation: 1",
        "blank: negative; readers: majority",
        "views: PA, unknown; supposed prevalence: 0.02",
        "Model reference 0.2.0",
        fourteen.model_sha256,
        *fourteen.training_data,
        "Figures on images that the model was trained on are no evidence",
    ):
        assert words in head


def test_the_confusion_and_its_figures_are_told_at_both_thresholds(fourteen, page):
    figures = fourteen.findings["atelectasis"]
    for table, point in ((2, figures), (3, figures.fixed_threshold)):
        counts = [[cell.strip() for cell in row] for row in page.tables[table][1:]]
        assert counts == [
            ["With it", *map(wording.count, (point.true_positive, point.false_negative))],
            ["Without it", *map(wording.count, (point.false_positive, point.true_negative))],
        ]
        assert f"{wording.number(point.threshold)} ({point.threshold_source})" in page.text
    shown = [cell.strip() for row in page.tables[4] for cell in row]
    for point in (figures, figures.fixed_threshold):
        assert wording.with_ends(point.sensitivity) in shown
        assert wording.with_ends(point.f1) in shown


def test_the_numbers_of_the_curves_stand_in_tables(fourteen, page):
    figures = fourteen.findings["atelectasis"]
    bins = [[cell.strip() for cell in row] for row in page.tables[5][1:]]
    assert bins == [
        [wording.number(one.probability), wording.with_ends(one.frequency), wording.count(one.n)]
        for one in figures.reliability
    ]
    benefit = [[cell.strip() for cell in row] for row in page.tables[6][1:]]
    curve = figures.net_benefit
    assert benefit == [
        [wording.number(at), wording.number(model, 4), wording.number(everyone, 4)]
        for at, model, everyone in zip(curve.thresholds, curve.model, curve.everyone, strict=True)
    ]


def test_groups_are_told_with_their_numbers_and_flagged_by_a_sign(fourteen, page):
    tables = [table for table in page.tables if "p (Holm)" in " ".join(table[0])]
    assert len(tables) == len(fourteen.findings)
    rows = [[" ".join(cell.split()) for cell in row] for row in tables[0][1:]]
    groups = [one for one in fourteen.subgroups if one.finding == "atelectasis"]
    for cells, one in zip(rows, groups, strict=True):
        name = f"{wording.attribute(one.attribute)}: {one.group}"
        counted = [name, wording.count(one.n), wording.count(one.n_positive)]
        if one.auroc is None:
            assert cells == [*counted, "too few cases", DASH, DASH]
            continue
        assert cells == [
            *counted,
            " ".join(_said(one.auroc)),
            " ".join(_said(one.auroc_difference)),
            wording.p_value(one.p_value),
            "▲ yes" if one.larger_than_noise else "no",
            " ".join(_said(one.sensitivity)),
            " ".join(_said(one.specificity)),
        ]


def test_few_cases_state_their_rule_and_keep_their_shares(make_evaluation):
    told = {"finding": "pneumonia", "attribute": "sex", "n": 47, "n_positive": 19}
    share = Interval(value=0.7895, low=0.5443, high=0.9395)
    groups = (
        SubgroupFigures(group="F", sensitivity=share, **told),
        SubgroupFigures(group="unknown", **told),
    )
    page = Page(render(make_evaluation(("pneumonia",), subgroups=groups), {}))
    (table,) = (table for table in page.tables if "p (Holm)" in " ".join(table[0]))
    rows = [[" ".join(cell.split()) for cell in row] for row in table[1:]]
    assert rows == [
        ["sex: F", "47", "19", "too few cases", "0.789 0.544 to 0.940", DASH],
        ["sex: unknown", "47", "19", "counted alone", DASH, DASH],
    ]
    text = " ".join(page.text.split())
    assert "An AUROC needs 20 patients with the finding and 20 without it in the group" in text
    assert "Sensitivity needs 5 images with the finding, specificity 5 without it" in text


def test_groups_of_one_attribute_stand_together_in_whatever_order_they_come(make_evaluation):
    groups = [
        SubgroupFigures(finding="pneumonia", attribute=attribute, group=group, n=9, n_positive=1)
        for attribute, group in (("sex", "F"), ("view", "AP"), ("sex", "M"))
    ]
    text = Page(render(make_evaluation(("pneumonia",), subgroups=tuple(groups)), {})).text
    assert text.count("View") == 1
    assert text.index("sex: F") < text.index("sex: M") < text.index("view: AP")


def test_each_audit_has_its_table_and_how_to_read_it(fourteen, page):
    text = " ".join(page.text.split())
    for reading in READINGS.values():
        assert f"{reading.read} Alarming: {reading.alarming}" in text
    shown = {" ".join(" ".join(row).split()) for table in page.tables for row in table}
    for one in fourteen.audits.image_use:
        areas = " ".join(
            f"{a} {b}" for a, b in map(_said, (one.real, one.blurred, one.auroc_difference))
        )
        start = f"{title(FINDINGS[one.finding])} 2,000 {areas} {MINUS}1.62 {MINUS}3.22"
        assert any(row.startswith(start) for row in shown)
    for one in fourteen.audits.lungs:
        areas = (one.auroc, one.auroc_hidden, one.auroc_difference, one.auroc_outside)
        told = " ".join(f"{a} {b}" for a, b in map(_said, areas))
        start = f"{title(FINDINGS[one.finding])} 1,861 {told}"
        assert any(row.startswith(start) for row in shown)
    row = fourteen.audits.indications[0]
    areas = (row.auroc, row.auroc_told, row.told_difference, row.auroc_mistaken)
    areas += (row.mistaken_difference, row.auroc_alone, row.image_difference)
    told = " ".join(f"{a} {b}" for a, b in map(_said, areas))
    start = f"{title(FINDINGS[row.finding])} 1,187 {told} 8"
    assert any(row.startswith(start) for row in shown)
    noise = fourteen.audits.label_noise[0]
    told = map(_said, (noise.auroc, noise.auroc_second, noise.auroc_difference))
    areas = " ".join(f"{a} {b}" for a, b in told)
    start = f"Atelectasis {noise.source} 810 61 38 52 659 0.51 {areas}"
    assert any(row.startswith(start) for row in shown)


def test_the_surest_errors_are_pictures_that_link_to_their_files(fourteen, content, page):
    links = [link["href"] for link in page.having("a") if not link["href"].startswith("#")]
    assert links[0] == "./images/atelectasis/00000%200%23a.png"
    assert len(links) == sum(map(len, fourteen.worst.values()))
    assert len(page.having("img")) == len(links) * 5 / 6  # the rest have no thumbnail
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.having("img"))
    assert page.having("img")[0]["alt"] == "Radiograph, false positive for Atelectasis:"
    assert "images/atelectasis/00005 0#a.png" in page.text
    elsewhere = Page(render(fourteen, {}, folder="../data"))
    assert any(
        link["href"] == "./../data/images/atelectasis/00000%200%23a.png"
        for link in elsewhere.having("a")
    )


@pytest.mark.parametrize("path", ["//evil.example/a.png", "javascript:alert(1)", "/a?b#c"])
def test_no_path_leads_elsewhere_than_to_a_file_beside_the_page(make_evaluation, path):
    worst = {"pneumonia": (WorstError(path=path, label=0, probability=0.9),)}
    page = Page(render(make_evaluation(("pneumonia",), worst=worst), {}))
    (link,) = [link["href"] for link in page.having("a") if not link["href"].startswith("#")]
    assert re.fullmatch(r"\./[\w./%-]+", link)


def test_what_is_not_defined_is_a_dash(make_evaluation, undefined):
    made = make_evaluation(("hernia",), findings={"hernia": undefined}, subgroups=(), worst={})
    page = Page(render(made, {}))
    cells = [" ".join(cell.split()) for cell in page.row(0, "Diaphragmatic hernia")]
    assert cells[1:] == [
        "41",
        "0 0.00%",
        *(DASH,) * 4,
        "0.031 0.022 to 0.042",
        f"0.052 {DASH}",
        *(DASH,) * 2,
    ]
    cells = [" ".join(cell.split()) for cell in page.row(1, "Diaphragmatic hernia")]
    certain = "1.000 1.000 to 1.000"
    assert cells[1:] == ["0.500", DASH, certain, DASH, certain, DASH]
    assert f"{DASH}: not defined on these images" in page.text
    assert page.text.count("not defined: a class is missing") == 2
    assert "None" not in page.text.replace("None.", "")
    assert "nan" not in page.text


def test_one_finding_without_groups_and_audits_makes_a_page(make_evaluation):
    made = make_evaluation(("pneumonia",), subgroups=(), audits=Audits(), errors={}, policy={})
    text = Page(render(made, {})).text
    assert "average" not in text
    assert "Not evaluated: the data set names no groups." in text
    assert text.count("Not made in this evaluation.") == len(READINGS)


def test_each_part_says_its_unit_and_its_number(page):
    assert page.text.count("Unit: image") == len(page.having("section")) == 4


def test_only_the_first_finding_is_open(page):
    parts = [part for part in page.having("details") if part.get("class") == "part"]
    assert [index for index, part in enumerate(parts) if "open" in part] == [0, 14]


def test_figures_and_tables_are_numbered_through(page):
    for word, n in (("Figure", 5 * 14), ("Table", len(page.tables))):
        numbers = [int(found) for found in re.findall(rf"{word} (\d+)\.", page.text)]
        assert numbers == list(range(1, n + 1))


def test_the_page_can_be_read_without_seeing_it(page):
    assert page.having("html") == [{"lang": "en"}]
    assert len(page.having("h1")) == 1
    assert all(header["scope"] in ("col", "row", "colgroup") for header in page.having("th"))
    assert all(image.get("alt") for image in page.having("img"))
    pictures = [one for one in page.having("svg") if "role" in one]
    assert len(pictures) == 5 * 14
    assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
    scrolled = [one for one in page.having("div") if one.get("class") == "scroll"]
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolled)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in page.having("a") if link["href"].startswith("#")]
    assert {target[1:] for target in targets} <= set(ids)


def test_the_page_loads_nothing_and_its_policy_admits_its_own_style_alone(content, page):
    (style,) = re.findall("<style>(.*?)</style>", content.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in page.having("meta") if "http-equiv" in meta]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        # The policy would block these, so that the page would look other than it was written.
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in style
    assert "@import" not in style


def test_what_the_document_says_is_text_and_not_markup(make_evaluation):
    made = make_evaluation(("pneumonia",))
    group = made.subgroups[0].model_copy(
        update={"group": ATTACK, "attribute": ATTACK, "larger_than_noise": True}
    )
    audits = made.audits
    hostile = made.model_copy(
        update={
            "dataset": ATTACK,
            "split": ATTACK,
            "model": ATTACK,
            "model_sha256": ATTACK,
            "policy": {ATTACK: ATTACK},
            "errors": {ATTACK: 1},
            "left_out": {ATTACK: 1},
            "training_data": (ATTACK,),
            "subgroups": (group,),
            "worst": {"pneumonia": (WorstError(path=ATTACK, label=1, probability=0.1),)},
            "audits": audits.model_copy(
                update={"prompts": (audits.prompts[0].model_copy(update={"question": ATTACK}),)}
            ),
        }
    )
    page = Page(render(hostile, {ATTACK: b"\xff\xd8\xff"}, folder=ATTACK))
    assert page.having("script") == []
    assert page.text.count(ATTACK) >= 12
    assert any(ATTACK in one.get("aria-label", "") for one in page.having("svg"))


def test_the_same_document_gives_the_same_bytes(fourteen, content, make_pictures):
    assert render(fourteen, make_pictures(fourteen)) == content


def test_fourteen_findings_fit_a_mail(fourteen):
    assert len(render(fourteen, {})) < 3_000_000


def test_a_picture_of_another_kind_is_refused(fourteen):
    with pytest.raises(ValueError, match="begins with b'GIF89a'; wanted is a PNG or JPEG file"):
        render(fourteen, {"a": b"GIF89a"})


def test_a_finding_that_is_not_known_is_refused(make_evaluation, make_figures):
    made = make_evaluation(("pneumonia",), findings={"gout": make_figures(0)})
    with pytest.raises(LabelError, match="'gout' is not a known finding"):
        render(made, {})

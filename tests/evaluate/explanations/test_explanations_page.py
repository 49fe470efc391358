from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medllm.dicom import Radiograph
from medllm.evaluate.explanations.page import render
from medllm.evaluate.explanations.pictures import MARKED, OUTLINE, draw_case, pictures_of
from medllm.evaluate.explanations.raster import SIDE
from medllm.evaluate.wording import ends, number
from medllm.explanation import DEFAULT_METHOD, AttributionMap

ATTACK = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def page(evaluated):
    _, out = evaluated
    return (out / "report.html").read_text()


def test_every_method_and_control_has_its_figures_on_the_page(evaluated, page):
    evaluation, _ = evaluated
    for name, findings in evaluation.localisation.items():
        assert f'<th scope="row">{name}' in page
        for one in findings.values():
            for figure in (one.pixel_auroc, one.hit_rate, one.miou, one.region_rate):
                assert number(figure.value, 2) in page
                assert ends(figure, 2) in page
    for check in evaluation.checks[DEFAULT_METHOD]:
        assert f'<td class="words">{check}</td>' in page


def test_the_page_says_which_methods_the_model_lacks_something_for(evaluated, page):
    evaluation, _ = evaluated
    assert "was left out" not in page
    lacking = evaluation.model_copy(update={"refusals": {"grad-cam": f"no tokens{ATTACK}"}})
    said = render(lacking, {}).decode()
    assert said.count("grad-cam was left out: no tokens") == 1
    assert ATTACK not in said


def test_the_page_warns_of_images_that_the_model_was_trained_on(page):
    head = page.split("<h2")[0]
    assert '<p class="caution">Figures on images that the model was trained on are no evid' in head


def test_cases_are_pictures_that_link_to_their_files(evaluated, page):
    evaluation, _ = evaluated
    chosen = [one for found in evaluation.cases.values() for one in (*found.best, *found.worst)]
    disputed = [one for found in evaluation.cases.values() for one in found.disputed]
    wanted = len(chosen) + len(disputed) * len(evaluation.methods)
    assert page.count("data:image/jpeg;base64,") == wanted
    assert page.count("no picture") == 0
    for case in chosen:
        assert f'/{case.path}">{case.path}</a>' in page


def test_the_page_says_what_it_is_not(page):
    assert "Research use only; not for diagnosis." in page
    assert "not where a finding is" in page


def test_the_page_loads_nothing_and_its_policy_admits_its_own_style_alone(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in policy
    assert "default-src &#39;none&#39;" in policy
    assert "<script" not in page
    assert " style=" not in page
    assert not re.findall(r'(?:src|href)="(?!data:image|#|\./)', page)


def test_the_same_document_gives_the_same_bytes(evaluated, outlined, page):
    evaluation, out = evaluated
    drawn = pictures_of(evaluation, outlined, out / "explanations.parquet")
    assert render(evaluation, drawn, folder="x") == render(evaluation, drawn, folder="x")


def test_a_path_cannot_break_out_of_the_page(evaluated):
    evaluation, _ = evaluated
    (key, chosen), *_ = evaluation.cases.items()
    worst = (chosen.worst[0].model_copy(update={"path": ATTACK}),)
    cases = {**evaluation.cases, key: chosen.model_copy(update={"worst": worst})}
    text = render(evaluation.model_copy(update={"cases": cases}), {}, folder="../nih").decode()
    assert "<script" not in text
    assert "no picture" in text


def test_phantoms_are_named_and_not_linked(evaluated):
    evaluation, _ = evaluated
    text = render(evaluation, {}).decode()
    assert 'href="./' not in text
    assert evaluation.cases["nodule"].worst[0].path in text


def test_the_outline_and_the_maps_line_are_where_they_are():
    scan = Radiograph(np.full((100, 200), 0.5, np.float32), Path("grey.png"), "png", "")
    outline = np.zeros((SIDE, SIDE), dtype=bool)
    outline[64:192, 32:96] = True
    values = np.zeros((4, 4))
    values[1:3, 2:] = 1e-6  # too weak to colour anything
    drawn = draw_case(scan, AttributionMap(values, (0.0, 0.0, 200.0, 100.0)), outline)
    pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    assert pixels.shape == (160, 320, 3)

    def near(color, row, column):
        around = pixels[row - 4 : row + 5, column - 4 : column + 5]
        return np.abs(around - color).sum(axis=2).min() < 120  # JPEG blurs a thin line

    # Of 256 cells the outline's left edge is at 32, an eighth of the width, and its top at 64.
    assert near(OUTLINE, 80, 40)
    assert near(OUTLINE, 40, 80)
    assert not near(OUTLINE, 80, 200)
    # Half of the attribution lies about the middle of the right half.
    assert any(near(MARKED, 80, column) for column in range(160, 250, 4))
    assert not any(near(MARKED, 80, column) for column in range(4, 140, 4))

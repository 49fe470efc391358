"""Regions that a map and the hiding of whole regions name both, or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from medllm.evaluate.explanations.figures import localisation_of
from medllm.evaluate.explanations.measured import read_table
from medllm.evaluate.explanations.table import SCHEMA
from medllm.metrics import Estimate
from medllm.models.measured import LocalisedFinding, MeasuredExplanations, MeasuredMethod, sentences

LEFT, RIGHT = "left lower", "right lower"
# Of each image the region that the map names, that hiding names, and whether the map's is right.
NAMED = [
    *[(LEFT, LEFT, 1.0)] * 9,
    (LEFT, LEFT, 0.0),
    *[(LEFT, RIGHT, 1.0)] * 2,
    *[(RIGHT, LEFT, 0.0)] * 6,
    (LEFT, None, 1.0),
    (None, LEFT, 0.0),
]


def table(folder: Path, *, hidden: bool = True) -> Path:
    """Write a table of one finding, all of whose images were read."""
    rows = []
    for at, (shown, other, held) in enumerate(NAMED):
        own = {"path": f"{at}.png", "patient_id": f"p{at}", "finding": "lung_opacity"}
        own |= {"rows": 8, "columns": 8, "half": "left", "hit": 1.0}
        methods = {"integrated-gradients": (shown, held), "mean-map": (LEFT, 1.0)}
        if hidden:
            methods["zone-shapley"] = (other, 0.0)
        rows += [
            own | {"method": method, "region": region, "region_hit": hit}
            for method, (region, hit) in methods.items()
        ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "table.parquet")
    return folder / "table.parquet"


def test_maps_are_divided_by_whether_hiding_regions_names_the_same(tmp_path):
    figures = localisation_of(read_table(table(tmp_path)).measured)
    own = figures["integrated-gradients"]["lung_opacity"]
    assert own.region_rate.value == pytest.approx(12 / 20)
    # Two images of which one of them names no region say nothing of it.
    assert own.region_confirmed.value == pytest.approx(10 / 18)
    assert own.region_rate_confirmed.value == pytest.approx(9 / 10)
    assert own.region_rate_contradicted.value == pytest.approx(2 / 8)
    assert own.region_rate_confirmed.low < 0.9 < own.region_rate_confirmed.high
    itself = figures["zone-shapley"]["lung_opacity"]
    assert itself.region_confirmed.value is None


def test_a_share_of_all_or_of_few_is_not_certain(tmp_path):
    figures = localisation_of(read_table(table(tmp_path)).measured)
    own = figures["integrated-gradients"]["lung_opacity"]
    for share, hits, n in ((own.hit_rate, 20, 20), (own.region_rate_contradicted, 2, 8)):
        exact = binomtest(hits, n).proportion_ci(method="exact")
        assert (share.low, share.high) == pytest.approx((exact.low, exact.high))


def test_without_the_hiding_of_regions_nothing_is_said_of_it(tmp_path):
    figures = localisation_of(read_table(table(tmp_path, hidden=False)).measured)
    own = figures["integrated-gradients"]["lung_opacity"]
    assert own.region_confirmed.value is own.region_rate_confirmed.value is None


def said_of(found: LocalisedFinding) -> list[str]:
    method = MeasuredMethod({"lung_opacity": found})
    measured = MeasuredExplanations("phantom", "all", 500, 500, "0.1.0", {"occlusion": method})
    return list(sentences([measured], {"occlusion": ["lung_opacity"]}))


def test_a_report_says_what_a_region_is_worth_that_both_name():
    rate = Estimate(0.8, 0.7, 0.9)
    found = LocalisedFinding(
        n=500,
        hit_rate=rate,
        fixed_hit_rate=None,
        pixel_auroc=None,
        over_mean_map=None,
        region_rate=rate,
        region_confirmed=Estimate(0.59, 0.55, 0.63),
        region_rate_confirmed=Estimate(0.9, 0.86, 0.93),
        region_rate_contradicted=Estimate(0.7, 0.64, 0.76),
    )
    (said,) = said_of(found)
    assert said.endswith(
        "the region named first held it in 80% (95% interval 70% to 90%), in 90% (95% interval 86% "
        "to 93%) where hiding whole regions names the same (59% of them) and in 70% (95% interval "
        "64% to 76%) where it names another."
    )
    (said,) = said_of(replace(found, n=24))  # 14 and 10 images
    assert "names another" in said
    (said,) = said_of(replace(found, n=20))
    assert "hiding" not in said

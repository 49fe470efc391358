from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import ImageRecord
from medllm.datasets.record import read_rows
from medllm.errors import LabelError
from medllm.phantom import make_phantom


@pytest.mark.parametrize("member", ["", "test_images/0"])
@pytest.mark.parametrize(
    ("recorded", "given", "is_inverted"),
    [
        ("auto", "auto", False),
        ("inverted", "auto", True),
        ("inverted", "normal", False),
        ("auto", "inverted", True),
        ("inverted", "inverted", True),
    ],
)
def test_the_records_polarity_holds_unless_the_caller_gives_one(
    tmp_path, member, recorded, given, is_inverted
):
    stored = (make_phantom(3, size=64, lesions=()).pixels * 255).astype(np.uint8)
    path = tmp_path / ("a.npz" if member else "a.png")
    if member:
        np.savez_compressed(path, test_images=stored[None])
    else:
        Image.fromarray(stored).save(path)
    record = ImageRecord("own", path, "p", {}, member=member, polarity=recorded)
    wanted = 1 - stored / 255 if is_inverted else stored / 255
    # Within the rounding of float32.
    np.testing.assert_allclose(record.radiograph(polarity=given).pixels, wanted, atol=1e-6)


@pytest.mark.parametrize("rows", ["a,1\nb,0\n", "a,1,\nb,0,,\n", "a,1,x,y\nb,0\n"])
def test_fields_of_columns_without_a_name_may_be_missing(tmp_path, rows):
    (tmp_path / "a.csv").write_text("path,label,,\n" + rows)
    assert read_rows(tmp_path / "a.csv", ("path", "label")) == [
        (2, {"path": "a", "label": "1"}),
        (3, {"path": "b", "label": "0"}),
    ]


@pytest.mark.parametrize(("row", "found"), [("a", "fewer"), ("a,1,,,", "more")])
def test_a_field_that_a_named_column_lacks_or_that_has_no_column_is_a_fault(tmp_path, row, found):
    (tmp_path / "a.csv").write_text(f"path,label,,\n{row}\n")
    with pytest.raises(LabelError, match=f"line 2: the row has {found} fields than the 4 of"):
        read_rows(tmp_path / "a.csv", ())


def test_rows_of_too_few_fields_are_told_together(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\na\nb,1\nc\nd\n")
    with pytest.raises(LabelError, match=r"line 2: the row has fewer .* So 3 times, on lines 2, 4"):
        read_rows(tmp_path / "a.csv", ())


@pytest.mark.parametrize("member", ["", "test_images/0"])
def test_an_image_is_named_by_its_place_in_the_folder(member):
    record = ImageRecord("own", Path("/data/a/b.npz"), "p", {}, member=member)
    end = f"/{member}" * bool(member)
    assert record.place(Path("/data")) == f"a/b.npz{end}"
    assert record.place(Path("/elsewhere")) == f"b.npz{end}"

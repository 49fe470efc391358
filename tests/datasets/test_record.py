from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import ImageRecord
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

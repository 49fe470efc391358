from __future__ import annotations

import pytest

from medllm.datasets.terms import Vocabulary

_WORDS = Vocabulary(
    meanings={"nodule": ("nodule",), "hydropneumothorax": ("effusion", "pneumothorax")},
    normal="normal",
    doubtful={"old scar": ("nodule",)},
    silent=("unchanged",),
)
_NONE = {"effusion": 0, "nodule": 0, "pneumothorax": 0}


@pytest.mark.parametrize(
    ("terms", "negative", "unknown"),
    [
        (["nodule"], {**_NONE, "nodule": 1}, {"nodule": 1}),
        # A part of a word, and a word of a part, are other terms.
        (["pseudonodule", "nodule shadow", "nod"], _NONE, {}),
        ([" Nodule "], {**_NONE, "nodule": 1}, {"nodule": 1}),
        (
            ["HYDROPNEUMOTHORAX"],
            {"effusion": 1, "pneumothorax": 1, "nodule": 0},
            {"effusion": 1, "pneumothorax": 1},
        ),
        (["normal"], _NONE, _NONE),
        # Beside another term `normal` is of a part of the image, and settles nothing.
        (["normal", "nodule"], {**_NONE, "nodule": 1}, {"nodule": 1}),
        (["old scar"], {"effusion": 0, "pneumothorax": 0}, {}),
        (["old scar", "nodule"], {**_NONE, "nodule": 1}, {"nodule": 1}),
        (["unchanged"], {}, {}),
        (["unchanged", "nodule"], {"nodule": 1}, {"nodule": 1}),
        (["", " "], {}, {}),
        ([], {}, {}),
    ],
)
def test_terms_become_labels(terms, negative, unknown):
    assert _WORDS.labels(terms, "negative") == negative
    assert _WORDS.labels(terms, "unknown") == unknown

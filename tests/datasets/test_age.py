from __future__ import annotations

import pytest

from medllm.datasets.age import age_attribute, read_age, years_of_attribute
from medllm.errors import LabelError


# A month is a twelfth of a year and a year 365.25 days, as of a header's Patient's Age.
@pytest.mark.parametrize(
    ("text", "years"),
    [
        (" 61 ", "61"),
        ("058Y", "58"),
        ("35.0", "35"),
        ("61.25", "61.25"),
        # Never rounded up to an adult's.
        ("17.99", "17.99"),
        ("018M", "1.5"),
        ("16 months", "1.3333"),
        ("003W", "0.0575"),
        ("2weeks", "0.0383"),
        ("10D", "0.0274"),
        ("0", "0"),
        ("122", "122"),
        ("", ""),
        ("  ", ""),
        # No person's.
        ("123", ""),
        ("-4", ""),
        ("414", ""),
        ("999Y", ""),
        ("1500m", ""),
    ],
)
def test_an_age_is_in_years_and_blank_where_nobody_can_have_it(text, years):
    assert read_age("labels.csv, line 2", "age", text) == years


@pytest.mark.parametrize("text", ["adult", "nan", "inf", "60s", "45-50", "1e2", "²"])
def test_what_is_no_age_is_told_with_its_place(text):
    with pytest.raises(LabelError) as caught:
        read_age("labels.csv, line 2", "age", text)
    assert str(caught.value) == (
        f"labels.csv, line 2: age is '{text}'; wanted is a number of years, or one with its unit "
        "such as 058Y or 6 months, or blank."
    )


def test_a_number_with_a_unit_that_is_none_says_nothing():
    assert (age_attribute(6, "Months"), age_attribute(3, "cavities")) == ("0.5", "")


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("45", 45),
        (" 45", 45),
        ("0.5", 0.5),
        ("1e-05", 1e-05),
        ("", None),
        ("²", None),
        ("45 years", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_the_years_of_an_attribute_are_a_number_or_none(text, years):
    assert years_of_attribute(text) == years


def test_the_age_that_stands_for_all_higher_ones_is_a_number():
    assert read_age("a.csv, line 2", "age", "90+") == read_age("a.csv, line 2", "age", "90")

"""The key, what is made with it, and the dates that it moves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from medllm.dicom.deidentify import Key, open_key
from medllm.dicom.deidentify.dates import (
    is_time,
    notations,
    parse_date,
    shift_date,
    shift_date_time,
)
from medllm.errors import DicomError

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)


def digest(purpose: str, value: str) -> int:
    """HMAC-SHA256 by its definition, RFC 2104: a key of 32 bytes is padded to a block of 64."""
    padded = KEY.secret.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
    inner.update(purpose.encode() + b"\0" + value.encode())
    outer = bytes(byte ^ 0x5C for byte in padded)
    return int.from_bytes(hashlib.sha256(outer + inner.digest()).digest())


def test_the_digest_of_this_test_is_that_of_the_standard_library():
    wanted = hmac.digest(KEY.secret, b"uid\0" + b"1.2.3", "sha256")
    assert digest("uid", "1.2.3") == int.from_bytes(wanted)


def test_values_follow_from_the_key_alone():
    # The definition again, so that two machines, and two versions of medllm, make one value.
    name = digest("uid", "1.2.840.1") >> 256 - 92
    bits = f"{name:092b}{digest('mark of uid', str(name)) >> 256 - 30:030b}"
    uuid = bits[:48] + "1000" + bits[48:60] + "10" + bits[60:]
    assert KEY.uid("1.2.840.1") == f"2.25.{int(uuid, 2)}"
    name = digest("patient", "4711") >> 256 - 60
    number = name << 20 | digest("mark of patient", str(name)) >> 256 - 20
    assert KEY.pseudonym("4711") == base64.b32encode(number.to_bytes(10)).decode()
    assert KEY.shift_days("ABC") == 365 + digest("days", "ABC") % 3288
    assert KEY.fingerprint == f"{digest('fingerprint', ''):064x}"[:8]


@given(texts)
def test_values_are_valid_and_are_known_again(original):
    uid, patient = KEY.uid(original), KEY.pseudonym(original)
    assert UID(uid).is_valid
    assert len(patient) == 16  # VR SH takes no more
    assert KEY.uid(uid) == uid
    assert KEY.pseudonym(patient) == patient
    assert KEY.made_pseudonym(patient)
    assert 365 <= KEY.shift_days(patient) <= 3652
    assert OTHER.uid(uid) != uid
    assert OTHER.pseudonym(patient) != patient
    assert not OTHER.made_pseudonym(patient)


@given(st.integers(0, 2**128 - 1))
def test_a_foreign_uid_of_the_same_form_is_replaced(number):
    assert KEY.uid(f"2.25.{number}") != f"2.25.{number}"


def test_padding_is_no_part_of_an_identifier():
    assert KEY.uid("1.2.3\0") == KEY.uid("1.2.3")
    assert KEY.pseudonym("4711 ") == KEY.pseudonym("4711") != KEY.pseudonym("4712")
    # One letter in two ways of Unicode is one patient.
    assert KEY.pseudonym("Z\u0307") == KEY.pseudonym("\u017b")


def test_identifiers_of_patients_and_uids_do_not_mix():
    assert len({KEY.uid(f"1.2.{n}") for n in range(2000)}) == 2000
    assert len({KEY.pseudonym(str(n)) for n in range(2000)}) == 2000
    shifts = [KEY.shift_days(KEY.pseudonym(str(n))) for n in range(2000)]
    # Uniform from 365 to 3652: the mean of 2,000 lies within 5 standard errors (21.2 days).
    assert abs(sum(shifts) / 2000 - 2008.5) < 5 * 21.3


def test_the_key_is_not_shown():
    assert "secret" not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)


def test_a_key_is_made_for_its_owner_alone_and_read_again(tmp_path):
    path = tmp_path / "site.key"
    key, made = open_key(path)
    assert made
    assert len(path.read_bytes()) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_key(path) == (key, False)
    assert open_key(tmp_path / "other.key")[0] != key


@pytest.mark.parametrize(
    ("content", "mode", "match"),
    [
        (bytes(range(31)), 0o600, "31 bytes, a key has 32"),
        (b"", 0o600, "0 bytes"),
        (os.urandom(4097), 0o600, "4097 bytes"),
        (bytes(64), 0o600, "1 different bytes"),
        (b"correct horse " * 4, 0o600, "different bytes and is not random"),
        (bytes(range(32)), 0o640, "chmod 600"),
        (bytes(range(32)), 0o604, "chmod 600"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path, content, mode, match):
    path = tmp_path / "site.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(DicomError, match=match) as caught:
        open_key(path)
    assert caught.value.code == "bad-key"
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_is_not_half_made(tmp_path, full_disk):
    with pytest.raises(DicomError, match="No such file"):
        open_key(tmp_path / "absent" / "site.key")
    with full_disk(8), pytest.raises(DicomError, match="cannot be read or made"):
        open_key(tmp_path / "site.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "days", "wanted"),
    [
        ("20190304", 1, "20190303"),
        ("20190301", 1, "20190228"),
        ("20200301", 1, "20200229"),
        ("20190304", 365, "20180304"),
        ("1995.07.20", 20, "19950630"),
        ("20190304 ", 1, "20190303"),
        ("20190304\0", 0, "20190304"),
        ("20190230", 1, None),
        ("2019", 1, None),
        ("20190304-20190305", 1, None),
        ("Quintilla", 1, None),
        ("00010101", 1, None),  # there is no day before it
    ],
)
def test_a_date_moves_by_whole_days(text, days, wanted):
    assert shift_date(text, days) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("20190304112207.123456+0100", "20190302112207.123456"),
        ("20190304112207", "20190302112207"),
        ("2019030411", "2019030211"),
        ("20190304", "20190302"),
        ("20190304-0500", "20190302"),
        ("201903", "201902"),
        ("2019", "2018"),
        ("20191304", None),
        ("20190304T1122", None),
        ("20190304112207.Quintilla", None),
    ],
)
def test_a_date_and_time_moves_by_whole_days_and_keeps_its_length(text, wanted):
    assert shift_date_time(text, 2) == wanted


@given(
    st.dates(date(1880, 1, 1), date(2100, 1, 1)),
    st.dates(date(1880, 1, 1), date(2100, 1, 1)),
    st.integers(0, 3652),
)
def test_intervals_stay(first, second, days):
    moved = [parse_date(shift_date(f"{each:%Y%m%d}", days) or "") for each in (first, second)]
    assert None not in moved
    assert moved[1] - moved[0] == second - first
    assert first - moved[0] == timedelta(days=days)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("112207", True),
        ("11:22:07", True),
        ("112207.123456", True),
        ("11", True),
        ("1122 ", True),
        ("Doe", False),
        ("112207 Doe", False),
        ("20190304", False),
    ],
)
def test_only_a_time_is_a_time(text, wanted):
    assert is_time(text) is wanted


def test_a_date_is_known_in_the_ways_that_people_write_it():
    written = notations(date(2019, 3, 4))
    assert {"20190304", "04032019", "03042019", "4march2019", "mar042019"} <= written
    assert {"04.03.19", "3/4/19", "4-3-19"} <= written
    assert not any(len(each) < 6 for each in written)

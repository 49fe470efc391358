"""What reads a header lets pydicom say nothing of it, in this thread or in many."""

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pydicom
import pytest
from pydicom.config import disable_value_validation

from medllm.dicom import read_identity, read_radiograph
from medllm.dicom.deidentify import deidentify_file, open_key
from medllm.dicom.silence import heard_in_silence, in_silence


@pytest.fixture
def malformed(make_dataset, write):
    """A name, by mistake, in place of the character set, which pydicom quotes when it reads."""
    with disable_value_validation():
        path = write(make_dataset(SpecificCharacterSet="ISO_IR 100", PatientID="4711"))
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"Zyxwvut^Qu"))
    return path


@pytest.mark.parametrize(
    "read",
    [
        pydicom.dcmread,
        read_radiograph,
        read_identity,
        lambda path: deidentify_file(path, open_key(path.parent / "site.key")[0]),
    ],
    ids=["pydicom", "read_radiograph", "read_identity", "deidentify"],
)
def test_a_value_of_the_header_reaches_no_log_and_no_warning(read, malformed, caplog):
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(malformed)
    told = caplog.text + " ".join(str(one.message) for one in caught)
    assert ("Zyxwvut" in told) == (read is pydicom.dcmread)


def test_the_warnings_that_were_kept_back_are_counted(malformed):
    (gate,) = [one for one in read_radiograph(malformed).gates if one.code == "irregular-header"]
    assert not gate.passed
    assert "pydicom gave " in gate.message


def _settings():
    return logging.getLogger("pydicom").disabled, list(warnings.filters), warnings.showwarning


def test_threads_that_leave_in_another_order_than_they_came_leave_all_as_it_was():
    """As in `medllm listen`: one sends while another begins to read, and reads on after it."""
    begun, ended = threading.Event(), threading.Event()

    def send():
        with in_silence():
            begun.set()
            ended.wait(10)

    before, thread = _settings(), threading.Thread(target=send)
    thread.start()
    assert begun.wait(10)
    with in_silence():
        silent = _settings()
        ended.set()
        thread.join()
        assert _settings() == silent != before
    assert _settings() == before


def test_a_thread_hears_its_own_warnings_alone():
    begun, ended = threading.Event(), threading.Event()

    def read():
        with heard_in_silence():
            begun.set()
            warnings.warn("of another file", stacklevel=1)
            ended.wait(10)

    thread = threading.Thread(target=read)
    with heard_in_silence() as heard:
        thread.start()
        assert begun.wait(10)
        with heard_in_silence() as within:
            warnings.warn("an irregular value", stacklevel=1)
        ended.set()
        thread.join()
    assert heard == within == ["an irregular value"]


def test_threads_that_read_leave_the_process_as_it_was(malformed, make_dataset, write):
    regular = write(make_dataset(), "regular.dcm")
    before = _settings()
    with ThreadPoolExecutor(4) as pool:
        scans = list(pool.map(read_radiograph, [malformed, regular] * 20))
    assert _settings() == before
    irregular = ["irregular-header" in {gate.code for gate in scan.warnings} for scan in scans]
    assert irregular == [True, False] * 20

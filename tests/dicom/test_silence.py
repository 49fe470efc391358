"""What reads a header lets pydicom say nothing of it, in this thread or in many."""

import logging
import threading
import warnings

import pydicom
import pytest
from pydicom.config import disable_value_validation

from medllm.dicom import read_identity, read_radiograph
from medllm.dicom.deidentify import deidentify_file, open_key
from medllm.dicom.silence import in_silence, process_in_silence


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


def test_a_thread_that_sends_takes_no_warning_from_one_that_reads():
    """As in `medllm listen`: one begins while the other counts warnings, and ends after it."""
    begun, ended = threading.Event(), threading.Event()

    def send():
        with in_silence():
            begun.set()
            ended.wait(10)

    before, thread = _settings(), threading.Thread(target=send)
    with process_in_silence():
        silent = _settings()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            thread.start()
            assert begun.wait(10)
            warnings.warn("an irregular value", stacklevel=1)
        ended.set()
        thread.join()
        assert len(caught) == 1
        assert _settings() == silent != before
    assert _settings() == before


def test_silence_is_set_back_also_after_that_of_a_process():
    before = _settings()
    with process_in_silence():
        pass
    with in_silence():
        assert _settings() != before
    assert _settings() == before

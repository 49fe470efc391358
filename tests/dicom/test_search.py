from __future__ import annotations

import pytest

from medllm.dicom import find_images
from medllm.errors import DicomError

DICOM = bytes(128) + b"DICM"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path):
    files = {
        "b.dcm": DICOM,
        "a/IM0001": DICOM,
        "a/bare": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
        "a/picture.tmp": PNG,
        "a/photo": b"\xff\xd8\xff\xe0",
        "a/empty.dcm": b"",
        "a/text.DCM": b"hello",
        "a/cut.png": b"",
        "a/cut.jpeg": b"",
        "a/labels.csv": b"path,label\n",
        "a/report.html": b"<html>",
        "a/notes.txt": b"a",
        "a/DICOMDIR": DICOM,
        "a/.hidden.dcm": DICOM,
        ".git/object.dcm": DICOM,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def names(folder, inputs):
    return [path.relative_to(folder).as_posix() for path in find_images(inputs)]


LISTED = [
    "a/IM0001",
    "a/bare",
    "a/cut.jpeg",
    "a/cut.png",
    "a/empty.dcm",
    "a/photo",
    "a/picture.tmp",
    "a/text.DCM",
    "b.dcm",
]


def test_a_folder_lists_images_by_content_or_name_sorted(folder):
    assert names(folder, [folder]) == LISTED


def test_files_are_listed_as_they_are_in_the_order_given(folder):
    given = [folder / "b.dcm", folder / "a" / "notes.txt", folder / "a" / "DICOMDIR"]
    assert list(find_images(given)) == given


def test_text_paths_will_do(folder):
    assert names(folder, [str(folder)]) == LISTED


def test_links_in_a_circle_end(folder):
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "a" / "broken.dcm").symlink_to(folder / "nothing")
    (folder / "a" / "itself.dcm").symlink_to(folder / "a" / "itself.dcm")
    assert names(folder, [folder]) == LISTED


def test_a_linked_folder_is_searched(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "c.dcm").write_bytes(DICOM)
    (folder / "z").symlink_to(elsewhere)
    assert names(folder, [folder]) == [*LISTED, "z/c.dcm"]


def test_a_missing_input_is_refused(folder):
    with pytest.raises(DicomError, match="no such file or folder") as caught:
        list(find_images([folder / "nothing"]))
    assert caught.value.code == "file-not-found"

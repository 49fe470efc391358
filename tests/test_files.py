from __future__ import annotations

import pytest

from medllm.files import replace_file


def test_what_was_being_read_stays_whole_while_it_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with path.open() as stream:
        replace_file(path, "newer")
        assert stream.read() == "old"
    assert path.read_text() == "newer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_bytes_and_line_ends_are_written_as_they_are(tmp_path):
    replace_file(tmp_path / "a.csv", "ä,b\r\nc\n")
    assert (tmp_path / "a.csv").read_bytes() == "ä,b\r\nc\n".encode()
    replace_file(tmp_path / "a.csv", b"\x00\xff")
    assert (tmp_path / "a.csv").read_bytes() == b"\x00\xff"


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, full_disk):
    path = tmp_path / "a.json"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        replace_file(path, "x" * 100_000)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]

from __future__ import annotations

import contextlib
import io
import os
import zipfile

import numpy as np
import pytest

from medllm.datasets import archive
from medllm.datasets.archive import archived_image, count_archived
from medllm.errors import DicomError


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 60), np.uint8)


@pytest.fixture
def path(tmp_path, stack):
    np.savez_compressed(tmp_path / "images.npz", a=stack, b=stack[::-1])
    return tmp_path / "images.npz"


@pytest.mark.parametrize(
    "order", [range(40), range(39, -1, -1), [7, 7, 7], [0, 39, 0, 20, 19, 21, 5]]
)
def test_images_are_the_same_in_any_order(path, stack, order):
    for index in order:
        assert (archived_image(path, f"a/{index}") == stack[index]).all()
        assert (archived_image(path, f"b/{index}") == stack[39 - index]).all()


def test_an_archive_that_was_not_compressed_is_read_too(tmp_path, stack):
    np.savez(tmp_path / "plain.npz", a=stack)
    assert (archived_image(tmp_path / "plain.npz", "a/3") == stack[3]).all()


def test_images_are_counted_without_reading_them(path):
    assert count_archived(path, "a") == 40


def test_an_archive_that_was_written_anew_is_read_anew(path, stack):
    assert (archived_image(path, "a/1") == stack[1]).all()
    np.savez_compressed(path, a=stack[::-1])
    os.utime(path, (1, 1))
    assert (archived_image(path, "a/1") == stack[38]).all()


@pytest.mark.parametrize("member", ["a/40", "a/-1", "c/0", "a/x", "a", ""])
def test_an_image_that_is_not_there_is_refused(path, member):
    archived_image(path, "a/0")
    with pytest.raises(DicomError, match=r"images.npz: .* cannot be read from the archive") as info:
        archived_image(path, member)
    assert info.value.code == "truncated"


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3, 3), np.uint16), np.zeros((2, 3)), np.zeros((2, 3, 3), np.uint8).T]
)
def test_an_array_that_is_no_stack_of_bytes_is_refused(tmp_path, values):
    np.savez_compressed(tmp_path / "images.npz", a=values)
    with pytest.raises(DicomError, match="ValueError"):
        archived_image(tmp_path / "images.npz", "a/0")
    with pytest.raises(DicomError, match="ValueError"):
        count_archived(tmp_path / "images.npz", "a")


def test_a_missing_archive_is_told_as_missing(tmp_path):
    with pytest.raises(DicomError, match="the file is not there") as info:
        archived_image(tmp_path / "images.npz", "a/0")
    assert info.value.code == "file-not-found"


def test_a_file_that_was_cut_off_is_refused(path):
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DicomError, match="get the file again"):
        archived_image(path, "a/0")


def test_an_array_that_ends_early_is_refused(tmp_path, stack):
    written = io.BytesIO()
    np.save(written, stack)
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as written_archive:
        written_archive.writestr("a.npy", written.getvalue()[: -50 * 60 - 1])
    assert (archived_image(tmp_path / "images.npz", "a/37") == stack[37]).all()
    with pytest.raises(DicomError, match="a/38 cannot be read"):
        archived_image(tmp_path / "images.npz", "a/38")


def test_after_damage_no_image_is_mistaken_for_another(path, stack):
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 64] = bytes(64)  # in the middle of the first array
    path.write_bytes(data)
    assert (archived_image(path, "a/0") == stack[0]).all()
    bad = 0
    for index in [*range(40), *range(39, -1, -1)]:
        with contextlib.suppress(DicomError):
            # The sum of the array is checked at its end alone, so that up to there an image may
            # be wrong in itself; but it is the right one.
            assert (archived_image(path, f"a/{index}") == stack[index]).mean() > 0.5
            continue
        bad += 1
    assert bad > 0
    assert (archived_image(path, "a/0") == stack[0]).all()


def test_a_reading_that_was_broken_off_does_not_shift_the_next(path, stack, monkeypatch):
    archived_image(path, "a/0")
    stream = archive._find_stack(path, "a")._stream
    read = stream.read
    calls = []

    def broken(size):
        calls.append(size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(size)

    monkeypatch.setattr(stream, "read", broken)
    with pytest.raises(KeyboardInterrupt):
        archived_image(path, "a/9")
    assert (archived_image(path, "a/9") == stack[9]).all()


def test_a_forked_process_opens_the_archive_for_itself(path, stack, monkeypatch):
    parents = archive._find_stack(path, "a")
    assert archive._find_stack(path, "a") is parents
    monkeypatch.setattr(archive.os, "getpid", lambda: -1)
    assert archive._find_stack(path, "a") is not parents
    assert (archived_image(path, "a/5") == stack[5]).all()


def test_a_damaged_stream_is_refused(tmp_path):
    # Rows that recur, so that the packing points back to them: the damage makes it point nowhere.
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (50, 60), np.uint8)[rng.integers(0, 50, (40, 50))]
    path = tmp_path / "images.npz"
    np.savez_compressed(path, a=stack)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    assert (archived_image(path, "a/0") == stack[0]).all()
    with pytest.raises(DicomError, match=r"a/39 cannot be read from the archive \(error\)"):
        archived_image(path, "a/39")
    assert (archived_image(path, "a/1") == stack[1]).all()

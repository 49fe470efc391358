"""What stands in a codestream beside the image, wherever a writer put it."""

from __future__ import annotations

from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from medllm.dicom.codestream import (
    codestream_bits,
    codestream_size,
    comments_of,
    is_cut_off,
    rle_holds_more,
)

WORDS = b"scan of Quintilla"
# A comment of JPEG; and of JPEG 2000, whose text stands behind two bytes for its kind.
COM = b"\xff\xfe" + (len(WORDS) + 2).to_bytes(2) + WORDS
COM_2000 = b"\xff\x64" + (len(WORDS) + 4).to_bytes(2) + b"\0\1" + WORDS


@pytest.fixture
def written(stored):
    """Write the image in a format of Pillow's."""

    def write(image_format, **options):
        stream = BytesIO()
        Image.fromarray((stored >> 4).astype(np.uint8)).save(stream, image_format, **options)
        return stream.getvalue()

    return write


@pytest.fixture
def jpeg(written):
    """Make a JPEG; one that is progressive has several scans."""
    return partial(written, "JPEG")


@pytest.fixture
def held(make_dataset):
    """Read what a frame holds beside the image."""

    def read(frame, syntax=JPEGBaseline8Bit):
        dataset = make_dataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        return list(comments_of(dataset))

    return read


@pytest.fixture
def compressed(make_dataset):
    def make(syntax):
        dataset = make_dataset()
        dataset.compress(syntax)
        return get_frame(dataset.PixelData, 0, number_of_frames=1)

    return make


def test_a_comment_is_found_behind_fill_bytes(jpeg, held):
    plain = jpeg()
    assert WORDS not in held(plain)
    for fill in (b"", b"\xff", b"\xff" * 7):
        assert WORDS in held(plain[:2] + fill + COM + plain[2:])


def test_a_comment_is_found_behind_a_marker_without_a_length(jpeg, held):
    plain = jpeg()
    assert WORDS in held(plain[:2] + b"\xff\x01" + COM + plain[2:])


def test_a_comment_is_found_between_scans(jpeg, held):
    progressive = jpeg(progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    assert WORDS in held(progressive[:second] + COM + progressive[second:])


def test_the_image_itself_is_no_comment(jpeg, compressed, held):
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        jfif, end = held(jpeg(**options))
        assert jfif.startswith(b"JFIF\0")
        assert end.strip(b"\0") == b""
    encoder, end = held(compressed(JPEG2000Lossless))
    assert encoder.startswith(b"\0\1Created by OpenJPEG")
    assert end.strip(b"\0") == b""


def test_what_follows_the_end_is_found(jpeg, held):
    for frame in (jpeg(), jpeg(progressive=True)):
        assert WORDS in held(frame + WORDS + b"\xff\xd9\0")[-1]
        assert held(frame + b"\0\0")[-1].strip(b"\0") == b""
        assert jpeg() in held(frame + jpeg())[-1], "a second image, too"


def test_what_stands_where_a_segment_should_is_found(jpeg, held):
    plain = jpeg()
    assert held(plain[:2] + WORDS + plain[2:])[-1].startswith(WORDS)


def test_jpeg_2000_is_looked_through_to_its_end(compressed, held):
    frame = compressed(JPEG2000Lossless)
    tile_part, data = frame.index(b"\xff\x90"), frame.index(b"\xff\x93")
    for at in (tile_part, data):  # in the main header, and in that of a tile part
        (named,) = [one for one in held(frame[:at] + COM_2000 + frame[at:]) if WORDS in one]
        assert named == b"\0\1" + WORDS
    assert WORDS in held(frame + WORDS)[-1]
    assert not any(WORDS in one for one in held(frame))


def test_jpeg_ls_is_looked_through_to_its_end(compressed, held):
    frame = compressed(JPEGLSLossless)
    assert all(one.strip(b"\0") == b"" for one in held(frame, JPEGLSLossless))
    assert WORDS in held(frame + WORDS, JPEGLSLossless)[-1]


def test_what_has_no_markers_has_no_comments(compressed, held):
    assert held(compressed(RLELossless), RLELossless) == []


@pytest.fixture
def boxed(written):
    """Make a JP2 file: a codestream of JPEG 2000 within boxes."""
    return partial(written, "JPEG2000")


def test_the_boxes_around_a_codestream_of_jpeg_2000_are_looked_through(boxed, held, stored):
    plain, at = boxed(), boxed().index(b"jp2c") - 4
    named = plain[:at] + (len(WORDS) + 8).to_bytes(4) + b"xml " + WORDS + plain[at:]
    assert not any(WORDS in one for one in held(plain))
    assert any(WORDS in one for one in held(named)), "in a box before the codestream"
    assert any(WORDS in one for one in held(plain + WORDS)), "and behind it"
    assert any(WORDS in one for one in held(plain[:at] + WORDS)), "and without any codestream"
    assert codestream_size(named) == codestream_size(boxed(no_jp2=True)) == stored.shape
    assert codestream_bits(named) == 8
    assert not is_cut_off(named)
    assert is_cut_off(named[:-20])


def test_zeros_behind_the_end_are_padding(jpeg, compressed):
    for frame in (jpeg(), compressed(JPEG2000Lossless), compressed(JPEGLSLossless)):
        assert not is_cut_off(frame + b"\0" * 64)
        assert is_cut_off(frame[:-20] + b"\0" * 64)


def test_rle_holds_more_where_bytes_follow_a_segment(compressed, stored):
    frame = compressed(RLELossless)
    second = int.from_bytes(frame[8:12], "little")
    later = frame[:8] + (second + 20).to_bytes(4, "little") + frame[12:second]
    assert not rle_holds_more(frame, stored.size)
    assert not rle_holds_more(frame + b"\0", stored.size), "padding"
    assert rle_holds_more(frame + WORDS, stored.size)
    assert rle_holds_more(later + WORDS + b"..." + frame[second:], stored.size), "between two"
    assert rle_holds_more(frame[:40] + WORDS + frame[40 + len(WORDS) :], stored.size), "header"


@pytest.mark.parametrize("cut", range(2, 40))
def test_a_codestream_that_is_cut_off_is_no_fault(jpeg, held, cut):
    assert all(len(one) <= cut for one in held(jpeg()[:cut]))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_size_and_bits_are_those_of_the_image(compressed, syntax, stored):
    frame = compressed(syntax)
    known = syntax != RLELossless
    assert codestream_size(frame) == (stored.shape if known else None)
    assert codestream_bits(frame) == (12 if known else None)

"""What stands in and around the pixels: hidden in them, beside them, and how they are shown."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.pixels.encoders.base import get_encoder
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from medllm.dicom import read_radiograph
from medllm.dicom.deidentify import Key, deidentify_file, removable
from medllm.errors import DicomError

KEY = Key(bytes(range(32)))
COMPRESSED = [RLELossless, JPEGLSLossless, JPEG2000Lossless]


def gates(made):
    return {gate.code: gate for gate in made.gates}


def refusal(path, **options):
    with pytest.raises(DicomError) as caught:
        deidentify_file(path, KEY, **options)
    return caught.value


@pytest.fixture
def signed(stored):
    """12-bit values around zero, as two's complement in 16 bits."""
    return stored.astype(np.int16) - 2048


@pytest.fixture
def overlaid():
    """Write a bar into the highest bit, as old devices wrote a name."""

    def draw(pixels):
        bar = np.zeros(pixels.shape, np.uint16)
        bar[20:30, 10:60] = 0x8000
        return (pixels.view(np.uint16) ^ bar).view(pixels.dtype)

    return draw


@pytest.fixture
def encode(make_dataset):
    """Compress an image of 12 bits with as many bits as the codestream shall have."""

    def make(pixels, syntax, bits, n_frames=1):
        dataset = make_dataset(pixels)
        frame = get_encoder(syntax).encode(
            pixels,
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=bits,
            pixel_representation=dataset.PixelRepresentation,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
        )
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame] * n_frames)
        if n_frames > 1:
            dataset.NumberOfFrames = n_frames
        return dataset

    return make


def test_the_sign_of_a_value_is_no_hidden_bit(make_dataset, write, signed):
    for pixels in (signed, signed & 0x0FFF):  # with the sign in all upper bits, and in none
        assert gates(deidentify_file(write(make_dataset(pixels)), KEY))["hidden-bits"].passed


def test_bits_above_signed_values_are_refused(make_dataset, write, signed, overlaid):
    for pixels in (signed, signed & 0x0FFF):
        path = write(make_dataset(overlaid(pixels)))
        assert refusal(path).code == "hidden-bits"
        assert not gates(deidentify_file(path, KEY, accept=["hidden-bits"]))["hidden-bits"].passed


@pytest.mark.parametrize(
    ("keyword", "value", "is_alarm"),
    [
        ("OverlayBitsAllocated", 16, True),
        ("OverlayBitPosition", 12, True),
        ("OverlayBitsAllocated", 1, False),
        ("OverlayBitPosition", 0, False),
    ],
)
def test_an_overlay_that_says_it_lies_in_the_pixels_is_refused(
    make_dataset, write, keyword, value, is_alarm
):
    """PS3.3 C.9.2: one of its own has 1 bit allocated, at position 0; 16 and 12 are retired."""
    dataset = make_dataset()
    element = {"OverlayBitsAllocated": 0x0100, "OverlayBitPosition": 0x0102}[keyword]
    dataset.add_new((0x6002, element), "US", value)
    if is_alarm:
        assert refusal(write(dataset)).code == "hidden-bits"
    else:
        assert gates(deidentify_file(write(dataset), KEY))["hidden-bits"].passed


def test_bits_above_values_of_one_byte_and_of_four_are_refused(make_dataset, write, stored):
    for kind, bits in ((np.uint8, 7), (np.uint32, 12)):
        pixels = (stored >> (12 - bits)).astype(kind)
        described = {"BitsStored": bits, "HighBit": bits - 1}
        assert deidentify_file(write(make_dataset(pixels, **described)), KEY)
        pixels[5, 5] |= 1 << bits
        assert refusal(write(make_dataset(pixels, **described))).code == "hidden-bits"


@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_hidden_bits_are_found_in_lossless_codestreams(
    encode, write, stored, signed, overlaid, syntax, is_signed
):
    pixels = signed if is_signed else stored
    for bits in (12, 16):
        plain = deidentify_file(write(encode(pixels, syntax, bits)), KEY)
        assert gates(plain)["hidden-bits"].passed
    assert refusal(write(encode(overlaid(pixels), syntax, 16))).code == "hidden-bits"


def test_a_second_image_in_fragments_of_rle_is_found(encode, write, stored):
    """PS3.5 A.4.2: a fragment a frame."""
    dataset = encode(stored, RLELossless, 12, n_frames=2)
    del dataset.NumberOfFrames
    assert refusal(write(dataset)).code == "hidden-bits"


def test_bytes_behind_an_rle_frame_are_found(encode, write, stored):
    dataset = encode(stored, RLELossless, 12)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame + b"Maria, bed 4"])
    assert refusal(write(dataset)).code == "hidden-bits"


def test_where_pixels_cannot_be_decoded_it_is_said_that_nobody_looked(encode, write, stored):
    made = deidentify_file(write(encode(stored, RLELossless, 12, n_frames=2)), KEY)
    assert "hidden-bits" not in gates(made)
    assert not gates(made)["hidden-bits-not-looked-for"].passed
    # Where a codestream has no room for more bits, no decoder is needed to see it.
    made = deidentify_file(write(encode(stored, JPEG2000Lossless, 12, n_frames=2)), KEY)
    assert gates(made)["hidden-bits"].passed


@pytest.fixture
def jpeg(make_dataset, stored):
    """A JPEG image, with or without something beside the image."""

    def make(begin=b"", end=b"", **options):
        grey, stream = (stored >> 4).astype(np.uint8), BytesIO()
        Image.fromarray(grey).save(stream, "JPEG", **options)
        frame = stream.getvalue()
        dataset = make_dataset(grey, PatientName="Doe^Quintilla")
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([frame[:2] + begin + frame[2:] + end])
        return dataset

    return make


EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0 Maria, bed 4"


@pytest.mark.parametrize(
    "beside",
    [
        {"comment": b"Maria, bed 4"},
        {"begin": b"\xff\xe1" + (len(EXIF) + 2).to_bytes(2) + EXIF},
        {"end": b"Maria, bed 4"},
    ],
    ids=["comment", "Exif", "behind the end"],
)
def test_words_in_a_codestream_are_warned_of_though_the_header_knows_them_not(jpeg, write, beside):
    made = deidentify_file(write(jpeg(**beside)), KEY)
    gate = gates(made)["text-in-codestream"]
    assert not gate.passed
    assert "Maria" not in gate.message


def test_what_each_encoder_writes_is_no_alarm(jpeg, make_dataset, write, stored):
    lead = b"\xff\xfe" + (2 + 28).to_bytes(2) + b"LEAD Technologies Inc. V1.01"
    files = [write(jpeg(), "1.dcm"), write(jpeg(begin=lead, end=bytes(6)), "2.dcm")]
    for number, syntax in enumerate(COMPRESSED):
        dataset = make_dataset()
        dataset.compress(syntax)
        files.append(write(dataset, f"{syntax.keyword}{number}.dcm"))
    for file in files:
        assert gates(deidentify_file(file, KEY))["text-in-codestream"].passed


@pytest.mark.parametrize(
    "beside",
    [
        {"begin": b"\xff\xff\xfe\x00\x13scan of Quintilla"},  # behind a fill byte
        {"end": b"scan of Quintilla\xff\xd9"},
    ],
    ids=["fill byte", "behind the end"],
)
def test_what_was_taken_out_is_found_beside_the_image(jpeg, write, beside):
    assert refusal(write(jpeg(**beside))).code == "residue"


# How the pixels are shown.


def stored_as(path, vr, *keywords):
    """Have a file of explicit encoding state another kind for attributes of a short form."""
    data = bytearray(path.read_bytes())
    for keyword in keywords:
        tag = Tag(keyword)
        at = data.index(struct.pack("<HH", tag.group, tag.element), 132) + 4
        length = bytes(data[at + 2 : at + 4])
        data[at : at + 4] = b"UN\0\0" + length + b"\0\0" if vr == "UN" else vr.encode() + length
    path.write_bytes(data)
    return path


SHOWN = [
    {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
    {"WindowCenter": "1500", "WindowWidth": "1800"},
    {"WindowCenter": "1500", "WindowWidth": "1800", "VOILUTFunction": "SIGMOID"},
    {"PresentationLUTShape": "INVERSE"},
    {"PixelPaddingValue": 600, "PixelPaddingRangeLimit": 700},
]


@pytest.mark.parametrize("attributes", SHOWN, ids=lambda attributes: list(attributes)[-1])
def test_an_image_is_shown_alike_whose_attributes_are_stored_as_unknown(
    make_dataset, write, tmp_path, attributes
):
    path = stored_as(write(make_dataset(**attributes)), "UN", *attributes)
    new = tmp_path / "new.dcm"
    new.write_bytes(deidentify_file(path, KEY).data)
    assert set(attributes) <= set(pydicom.dcmread(new).dir())
    before = read_radiograph(path)
    assert np.array_equal(read_radiograph(new).pixels, before.pixels)
    plain = read_radiograph(write(make_dataset(), "plain.dcm"))
    assert not np.array_equal(before.pixels, plain.pixels), "it is read, and shows another image"


def test_what_is_stored_as_unknown_is_taken_out_as_what_it_is(make_dataset, write):
    named = {"PatientName": "Doe^Quintilla", "StudyDate": "20190304", "StationName": "DX1"}
    path = stored_as(write(make_dataset(**named, PatientID="QX773")), "UN", *named)
    made = deidentify_file(path, KEY)
    assert b"Quintilla" not in made.data
    new = pydicom.dcmread(DicomBytesIO(made.data))
    assert (new.PatientName, new.StationName) == (f"{made.patient}^", "DX1")
    assert new.StudyDate not in ("", "20190304")
    named["StationName"] = "of QUINTILLA"
    path = stored_as(write(make_dataset(**named)), "UN", *named)
    assert refusal(path).code == "residue"


@pytest.mark.parametrize(
    ("keyword", "value", "vr"),
    [
        ("RescaleSlope", "-1", "LO"),
        ("RescaleIntercept", "4095", "IS"),
        ("WindowCenter", "1500", "LO"),
        ("PresentationLUTShape", "INVERSE", "LO"),
        ("PixelPaddingValue", 600, "SH"),
    ],
)
def test_what_shows_the_pixels_is_not_taken_out_in_silence(make_dataset, write, keyword, value, vr):
    path = stored_as(write(make_dataset(**{keyword: value})), vr, keyword)
    error = refusal(path)
    assert error.code == "bad-header"
    assert f"{Tag(keyword)}, by which the pixels are shown, is stored as {vr}" in str(error)
    if (tag := removable(keyword)) is None:
        assert "--remove" not in str(error)
    else:
        assert str(error).endswith(f"or take it out with --remove {keyword}.")
        new = deidentify_file(path, KEY, remove=[tag])
        assert keyword not in pydicom.dcmread(DicomBytesIO(new.data))


def test_words_in_the_place_of_a_window_are_refused_and_not_told(make_dataset, write):
    path = write(make_dataset(WindowCenter="1500", WindowWidth="1800"))
    path.write_bytes(path.read_bytes().replace(b"1500", b"Lisa"))
    error = refusal(path)
    assert error.code == "bad-header"
    assert "Lisa" not in str(error)

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medllm.dicom import read_radiograph
from medllm.errors import DicomError

COMPRESSED = [RLELossless, JPEGLSLossless, JPEG2000Lossless]


def encoded(dataset, transfer_syntax):
    """Encode a data set again; big endian needs its pixels turned."""
    if transfer_syntax in COMPRESSED:
        dataset.compress(transfer_syntax)
    elif transfer_syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    return dataset


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_lossless_forms_give_identical_pixels(make_dataset, write, transfer_syntax):
    plain = read_radiograph(write(make_dataset()))
    other = read_radiograph(write(encoded(make_dataset(), transfer_syntax), "other.dcm"))
    assert np.array_equal(other.pixels, plain.pixels)
    assert other.pipeline[0].detail.startswith(transfer_syntax.name)
    assert "lossy" not in {gate.code for gate in other.warnings}


def test_bits_above_bits_stored_are_no_pixel_values(make_dataset, write, stored):
    plain = read_radiograph(write(make_dataset())).pixels
    overlay = stored | np.uint16(0x8000)
    assert np.array_equal(read_radiograph(write(make_dataset(overlay))).pixels, plain)


def jpeg(stored):
    stream = BytesIO()
    Image.fromarray((stored >> 4).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_jpeg_baseline_is_read_with_a_warning(make_dataset, write, stored):
    dataset = make_dataset((stored >> 4).astype(np.uint8), WindowCenter=128, WindowWidth=256)
    plain = read_radiograph(write(dataset, "plain.dcm")).pixels
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([jpeg(stored)])
    scan = read_radiograph(write(dataset))
    assert "lossy" in {gate.code for gate in scan.warnings}
    # Noise of this strength at quality 95 comes back within a few steps of 255.
    assert abs(scan.pixels - plain).max() < 8 / 255


@pytest.mark.parametrize(
    ("transfer_syntax", "extra"),
    [(JPEGLosslessSV1, "medllm[gdcm]"), (JPEGExtended12Bit, "medllm[libjpeg]")],
)
def test_missing_decoder_names_the_extra(make_dataset, write, transfer_syntax, extra):
    for module in ("gdcm", "libjpeg"):
        if find_spec(module):
            pytest.skip(f"{module} is installed, so no decoder is missing")
    dataset = make_dataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.PixelData = encapsulate([b"\xff\xd8" + bytes(64)])
    with pytest.raises(DicomError, match="pip install") as caught:
        read_radiograph(write(dataset))
    assert caught.value.code == "decoder-missing"
    assert extra in str(caught.value)


def test_a_transfer_syntax_that_nobody_reads_is_named(make_dataset, write):
    path = write(encoded(make_dataset(), JPEG2000Lossless))
    # Deflated Image Frame Compression, which pydicom does not know and would not write.
    deflated_frame = b"1.2.840.10008.1.2.8.1\x00"
    path.write_bytes(path.read_bytes().replace(JPEG2000Lossless.encode(), deflated_frame))
    with pytest.raises(DicomError, match=r"1\.2\.840\.10008\.1\.2\.8\.1") as caught:
        read_radiograph(path)
    assert caught.value.code == "unsupported-transfer-syntax"


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *COMPRESSED]
)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_file_that_is_cut_off_is_truncated(make_dataset, write, transfer_syntax, share):
    path = write(encoded(make_dataset(), transfer_syntax))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DicomError, match="again") as caught:
        read_radiograph(path)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize(
    ("transfer_syntax", "code"),
    [
        (RLELossless, "damaged-pixels"),  # RLE has no marker for its end
        (JPEGLSLossless, "truncated"),
        (JPEG2000Lossless, "truncated"),
    ],
)
def test_a_codestream_that_is_cut_off_is_refused(make_dataset, write, transfer_syntax, code):
    dataset = encoded(make_dataset(), transfer_syntax)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    with pytest.raises(DicomError, match="again") as caught:
        read_radiograph(write(dataset))
    assert caught.value.code == code


@pytest.mark.parametrize("transfer_syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_codestream_larger_than_the_header_is_refused_undecoded(
    make_dataset, write, stored, transfer_syntax
):
    dataset = make_dataset(stored.astype(np.uint8))
    if transfer_syntax == JPEGBaseline8Bit:
        dataset.file_meta.TransferSyntaxUID = transfer_syntax
        dataset.PixelData = encapsulate([jpeg(stored)])
    else:
        dataset.compress(transfer_syntax)
    dataset.Rows = 64
    with pytest.raises(DicomError, match="states 96 x 80 pixels, the header 64 x 80") as caught:
        read_radiograph(write(dataset))
    assert caught.value.code == "bad-header"


@pytest.mark.parametrize("transfer_syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_deeper_than_the_header_says_is_refused(
    make_dataset, write, stored, transfer_syntax
):
    """It would be read modulo 256; PS3.5 8.2.3 and 8.2.4 want the same depth."""
    dataset = encoded(make_dataset(), transfer_syntax)
    shallow = make_dataset((stored >> 4).astype(np.uint8), WindowCenter=128, WindowWidth=256)
    shallow.file_meta.TransferSyntaxUID = transfer_syntax
    shallow.PixelData = dataset.PixelData
    with pytest.raises(DicomError, match="12 bits a pixel, Bits Allocated .* 8;") as caught:
        read_radiograph(write(shallow))
    assert caught.value.code == "bad-header"

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from medllm.dicom import read_identity, read_radiograph
from medllm.errors import DicomError


@pytest.fixture
def grey(stored):
    return (stored >> 4).astype(np.uint8)


def save(tmp_path, image, name="scan.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_8_bit_png_is_divided_by_255(tmp_path, grey):
    scan = read_radiograph(save(tmp_path, Image.fromarray(grey)))
    assert np.array_equal(scan.pixels, (grey / 255).astype(np.float32))
    assert scan.file_format == "png"
    assert [step.name for step in scan.pipeline] == ["decode", "scale"]
    assert [gate.code for gate in scan.warnings] == ["no-header"]


def test_16_bit_png_takes_the_percentile_window(tmp_path, stored):
    scan = read_radiograph(save(tmp_path, Image.fromarray(stored)))
    low, high = np.percentile(stored, [0.5, 99.5])
    wanted = ((stored - low) / (high - low)).clip(0, 1)
    assert scan.pixels == pytest.approx(wanted, abs=1.2e-7)  # two steps of float32
    assert [step.name for step in scan.pipeline] == ["decode", "percentile-window"]


def _png(values):
    """Write 16 bits a channel, which Pillow does not, after ISO/IEC 15948."""
    rows, columns, channels = values.shape
    kind = {2: 4, 3: 2}[channels]  # grey with alpha, or colours
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([16, kind, 0, 0, 0])
    parts = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in parts.items()
    )


@pytest.mark.parametrize("channels", [2, 3])
def test_a_png_of_which_half_the_bits_would_be_lost_is_refused(tmp_path, stored, channels):
    path = tmp_path / "scan.png"
    path.write_bytes(_png(np.stack([stored] * channels, axis=-1)))
    with pytest.raises(DicomError, match="save it as a grey PNG of 16 bits") as caught:
        read_radiograph(path)
    assert caught.value.code == "bits-lost"


def test_jpeg_is_read_and_called_lossy(tmp_path, grey):
    scan = read_radiograph(save(tmp_path, Image.fromarray(grey), "scan.jpg", quality=95))
    assert scan.file_format == "jpeg"
    assert {gate.code for gate in scan.warnings} == {"no-header", "lossy"}
    # Noise of this strength at quality 95 comes back within a few steps of 255.
    assert abs(scan.pixels - grey / 255).max() < 8 / 255


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_stored_as_color_is_grey(tmp_path, grey, mode):
    scan = read_radiograph(save(tmp_path, Image.fromarray(grey).convert(mode)))
    assert np.array_equal(scan.pixels, (grey / 255).astype(np.float32))


def test_grey_stored_as_color_jpeg_is_grey(tmp_path, grey):
    path = save(tmp_path, Image.fromarray(grey).convert("RGB"), "scan.jpg", quality=95)
    assert abs(read_radiograph(path).pixels - grey / 255).max() < 8 / 255


@pytest.mark.parametrize(("mode", "name"), [("RGB", "a.png"), ("RGBA", "a.png"), ("RGB", "a.jpg")])
def test_true_color_is_refused(tmp_path, grey, mode, name):
    channels = np.stack([grey, grey // 2, grey], axis=2)
    with pytest.raises(DicomError, match="coloured") as caught:
        read_radiograph(save(tmp_path, Image.fromarray(channels).convert(mode), name))
    assert caught.value.code == "color"


@pytest.mark.parametrize("name", ["scan.png", "scan.jpg"])
@pytest.mark.parametrize("allowed", [False, True])
def test_a_picture_that_is_cut_off_is_refused(tmp_path, grey, name, allowed, monkeypatch):
    # Libraries beside us switch this on for the whole process, and Pillow then fills up with grey.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
    path = save(tmp_path, Image.fromarray(grey), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DicomError, match="cut off") as caught:
        read_radiograph(path)
    assert caught.value.code == "truncated"
    assert allowed is ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.timeout(60)
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_that_claims_too_much_is_refused_undecoded(tmp_path, grey, side):
    path = save(tmp_path, Image.fromarray(grey))
    data = bytearray(path.read_bytes())
    # Width and height of IHDR; its checksum is renewed so that only the size is wrong.
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with pytest.raises(DicomError, match="claims") as caught:
        read_radiograph(path)
    assert caught.value.code == "too-large"


def test_polarity_of_the_caller_inverts_a_picture(tmp_path, grey):
    path = save(tmp_path, Image.fromarray(255 - grey))
    assert "polarity-doubtful" in {gate.code for gate in read_radiograph(path).warnings}
    scan = read_radiograph(path, polarity="inverted")
    assert scan.pixels == pytest.approx(grey / 255, abs=1.2e-7)
    assert {gate.code for gate in scan.warnings} == {"no-header", "polarity-override"}


def test_exif_orientation_is_followed_as_a_viewer_does(tmp_path, grey):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    scan = read_radiograph(save(tmp_path, Image.fromarray(grey), exif=exif))
    assert np.array_equal(scan.pixels, (np.rot90(grey, -1) / 255).astype(np.float32))


def test_a_small_and_a_flat_picture_are_refused(tmp_path):
    for shape, code in (((63, 200), "too-small"), ((100, 100), "flat-image")):
        path = save(tmp_path, Image.fromarray(np.full(shape, 90, np.uint8)))
        with pytest.raises(DicomError) as caught:
            read_radiograph(path)
        assert caught.value.code == code


def test_a_picture_has_no_identity(tmp_path, grey):
    assert read_identity(save(tmp_path, Image.fromarray(grey))).patient_id is None

from __future__ import annotations

import numpy as np
import pytest
from highdicom import imread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medllm.dicom import read_radiograph

TOP = 2**12 - 1
# float32 between 0 and 1 has steps of 6e-8; two of them.
ONE_STEP = 1.2e-7


def lut_item(entries, first=0, bits=12):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return Sequence([item])


def steps(scan):
    return [step.name for step in scan.pipeline]


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -200)])
def test_window_agrees_with_pydicom(make_dataset, write, stored, function, slope, intercept):
    dataset = make_dataset(
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[1700 * slope + intercept, 5],
        WindowWidth=[2400 * slope, 5],
        VOILUTFunction=function,
    )
    low, high = (value * slope + intercept for value in (0, TOP))
    wanted = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    scan = read_radiograph(write(dataset))
    assert scan.pixels == pytest.approx((wanted - low) / (high - low), abs=ONE_STEP)
    assert steps(scan) == ["decode", "rescale", "window", "polarity"]
    assert [step.numbers for step in scan.pipeline[1:]] == [
        (slope, intercept),
        (1700 * slope + intercept, 2400 * slope),
        (0,),
    ]


def test_first_of_several_windows_is_used(make_dataset, write):
    several = make_dataset(WindowCenter=[1700, 900], WindowWidth=[2400, 600])
    first = make_dataset(WindowCenter=1700, WindowWidth=2400)
    got = read_radiograph(write(several, "a.dcm")).pixels
    assert np.array_equal(got, read_radiograph(write(first, "b.dcm")).pixels)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_display_agrees_with_highdicom(make_dataset, write, photometric):
    path = write(
        make_dataset(
            PhotometricInterpretation=photometric,
            PresentationLUTShape="INVERSE" if photometric == "MONOCHROME1" else "IDENTITY",
            # highdicom folds the slope into the window, off by half a value unless it is 1.
            RescaleSlope=1,
            RescaleIntercept=-100,
            WindowCenter=1600,
            WindowWidth=2500,
        )
    )
    image = imread(path)
    wanted = image.get_frame(1, apply_voi_transform=True, apply_presentation_lut=True)
    # highdicom computes in float64 with the formula written another way.
    assert read_radiograph(path).pixels == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("window", [None, (1700, 2400), (1700.5, 2000), (2048, 1)])
def test_monochrome1_copy_has_the_same_pixels(make_dataset, write, stored, window):
    plain, inverse = {}, {"PhotometricInterpretation": "MONOCHROME1"}
    if window:
        center, width = window
        plain |= {"WindowCenter": center, "WindowWidth": width}
        # The mirror image of the LINEAR window, whose middle is center - 0.5.
        inverse |= {"WindowCenter": TOP - center + 1, "WindowWidth": width}
    a = read_radiograph(write(make_dataset(**plain), "a.dcm")).pixels
    b = read_radiograph(write(make_dataset(TOP - stored, **inverse), "b.dcm")).pixels
    assert b == pytest.approx(a, abs=ONE_STEP)
    assert a[48, 40] > a[48, 2]  # and the mediastinum is the bright part of both


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
def test_grey_scale_is_inverted_once(make_dataset, write, photometric, shape, inverted):
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    dataset = make_dataset(PhotometricInterpretation=photometric, **window)
    if shape:
        dataset.PresentationLUTShape = shape
    plain = read_radiograph(write(make_dataset(**window), "plain.dcm")).pixels
    got = read_radiograph(write(dataset)).pixels
    assert got == pytest.approx(1 - plain if inverted else plain, abs=ONE_STEP)


def test_polarity_of_the_caller_wins_and_is_recorded(make_dataset, write):
    path = write(make_dataset(PhotometricInterpretation="MONOCHROME1"))
    auto, normal, inverted = (
        read_radiograph(path, polarity=polarity) for polarity in ("auto", "normal", "inverted")
    )
    assert normal.pixels == pytest.approx(1 - auto.pixels, abs=ONE_STEP)
    assert np.array_equal(inverted.pixels, auto.pixels)
    assert "polarity-override" in {gate.code for gate in normal.warnings}
    assert "polarity-override" not in {gate.code for gate in auto.warnings}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 3])
def test_padding_is_air_and_moves_no_other_pixel(make_dataset, write, stored, photometric, limit):
    kept = np.maximum(stored, 10)
    padded = kept.copy()
    padded[:20] = 0
    padded[10:20, ::2] = limit or 0
    attributes = {"PhotometricInterpretation": photometric, "PixelPaddingValue": 0}
    if limit:
        attributes["PixelPaddingRangeLimit"] = limit
    window = {"WindowCenter": 2000, "WindowWidth": 3000}
    got = read_radiograph(write(make_dataset(padded, **attributes, **window))).pixels
    whole = read_radiograph(
        write(make_dataset(kept, PhotometricInterpretation=photometric, **window))
    ).pixels
    assert (got[:20] == 0).all()
    assert np.array_equal(got[20:], whole[20:])


def test_padding_does_not_count_in_the_percentiles(make_dataset, write, stored):
    padded = np.maximum(stored, 10)
    padded[:48] = 0
    scan = read_radiograph(write(make_dataset(padded, PixelPaddingValue=0)))
    low, high = np.percentile(padded[48:], [0.5, 99.5])
    wanted = ((padded[48:] - low) / (high - low)).clip(0, 1)
    assert scan.pixels[48:] == pytest.approx(wanted, abs=ONE_STEP)
    assert steps(scan) == ["decode", "padding", "percentile-window", "polarity"]


def test_signed_pixels_and_a_padding_value_written_unsigned(make_dataset, write, stored):
    signed = stored.astype(np.int16) - 2048
    signed[:10] = -2000
    dataset = make_dataset(signed, WindowCenter=0, WindowWidth=4096)
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    scan = read_radiograph(write(dataset))
    assert (scan.pixels[:10] == 0).all()
    assert scan.pixels[10:] == pytest.approx((signed[10:] + 2048) / TOP, abs=ONE_STEP)


@pytest.mark.parametrize("first", [0, 500])
def test_modality_table_agrees_with_pydicom_and_comes_before_the_window(
    make_dataset, write, stored, first
):
    entries = (np.linspace(0, 1, 3000) ** 2 * 65535).astype(int)
    dataset = make_dataset(WindowCenter=20000, WindowWidth=60000)
    dataset.ModalityLUTSequence = lut_item(entries, first, bits=16)
    dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    modality = apply_modality_lut(stored, dataset).astype(float)
    scan = read_radiograph(write(dataset))
    wanted = ((modality - 19999.5) / 59999 + 0.5).clip(0, 1)
    assert scan.pixels == pytest.approx(wanted, abs=ONE_STEP)
    assert steps(scan) == ["decode", "modality-lut", "window", "polarity"]


@pytest.mark.parametrize("first", [0, 700])
def test_voi_table_agrees_with_pydicom_and_comes_before_the_window(
    make_dataset, write, stored, first
):
    entries = (np.linspace(0, 1, 3000) ** 0.5 * TOP).astype(int)
    dataset = make_dataset(WindowCenter=1, WindowWidth=2)
    dataset.VOILUTSequence = lut_item(entries, first)
    wanted = apply_voi_lut(stored, dataset) / TOP
    scan = read_radiograph(write(dataset))
    assert scan.pixels == pytest.approx(wanted, abs=ONE_STEP)
    assert steps(scan) == ["decode", "voi-lut", "polarity"]


def test_voi_table_takes_signed_rescaled_values(make_dataset, write, stored):
    entries = np.arange(4096)
    dataset = make_dataset(RescaleSlope=1, RescaleIntercept=-2048)
    dataset.VOILUTSequence = lut_item(entries, first=-2048)
    assert read_radiograph(write(dataset)).pixels == pytest.approx(stored / TOP, abs=ONE_STEP)


SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("modality", ["table", "rescale"])
def test_a_voi_table_is_unsigned_where_its_input_is_whatever_the_stored_values_are(
    make_dataset, write, stored, modality, syntax
):
    """PS3.3 C.11.2.1.1; an input from 40000 on would be -25536 with a sign."""
    signed = stored.astype(np.int16) - 2048
    dataset = make_dataset(signed)
    dataset.file_meta.TransferSyntaxUID = syntax
    if modality == "table":
        dataset.ModalityLUTSequence = lut_item(np.arange(40000, 44096), first=-2048, bits=16)
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    else:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 42048
    dataset.VOILUTSequence = lut_item(np.arange(4096), first=40000)
    scan = read_radiograph(write(dataset))
    assert scan.pixels == pytest.approx(stored / TOP, abs=ONE_STEP)
    assert next(step.numbers for step in scan.pipeline if step.name == "voi-lut") == (40000,)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_voi_table_is_signed_where_the_header_allows_an_input_below_0(
    make_dataset, write, stored, syntax
):
    """The image itself has none, and an implicit encoding does not state the sign."""
    above = np.maximum(stored, 100)
    dataset = make_dataset(above, RescaleSlope=1, RescaleIntercept=-100)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.VOILUTSequence = lut_item(np.arange(4096), first=-100)
    scan = read_radiograph(write(dataset))
    assert scan.pixels == pytest.approx(above / TOP, abs=ONE_STEP)


def test_a_voi_table_may_begin_below_what_can_be(make_dataset, write, stored):
    dataset = make_dataset(stored.astype(np.int16) - 2048, RescaleSlope=1, RescaleIntercept=2048)
    dataset.VOILUTSequence = lut_item(np.arange(4096) * 10 // 11, first=-10)
    wanted = (stored.astype(int) + 10).clip(0, TOP) * 10 // 11 / TOP
    assert read_radiograph(write(dataset)).pixels == pytest.approx(wanted, abs=ONE_STEP)


@pytest.mark.parametrize(("highest", "white"), [(2047, 4095), (1023, 1023)])
def test_a_table_may_leave_one_of_its_bits_unused(make_dataset, write, stored, highest, white):
    dataset = make_dataset()
    dataset.VOILUTSequence = lut_item(np.arange(4096) * highest // 4095)
    wanted = (stored.astype(int) * highest // 4095) / white
    assert read_radiograph(write(dataset)).pixels == pytest.approx(wanted, abs=ONE_STEP)


def test_a_12_bit_table_that_claims_16_bits_is_not_almost_black(make_dataset, write, stored):
    dataset = make_dataset()
    dataset.VOILUTSequence = lut_item(np.arange(4096), bits=16)
    assert read_radiograph(write(dataset)).pixels == pytest.approx(stored / TOP, abs=ONE_STEP)


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 2000, "WindowWidth": 1},
        {"WindowCenter": 9000, "WindowWidth": 400},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTFunction": "CUBIC"},
    ],
)
def test_without_a_usable_window_the_percentiles_are_used_and_recorded(
    make_dataset, write, stored, window
):
    scan = read_radiograph(write(make_dataset(**window)))
    low, high = np.percentile(stored, [0.5, 99.5])
    assert scan.pixels == pytest.approx(((stored - low) / (high - low)).clip(0, 1), abs=ONE_STEP)
    assert steps(scan) == ["decode", "percentile-window", "polarity"]
    assert f"{low:g} to {high:g}" in scan.pipeline[1].detail
    assert scan.pipeline[1].numbers == pytest.approx((low, high))


def test_a_wide_black_collimation_does_not_make_a_window_unusable(make_dataset, write, stored):
    collimated = stored.copy()
    collimated[30:] = 0
    dataset = make_dataset(collimated, WindowCenter=2048, WindowWidth=4096)
    scan = read_radiograph(write(dataset))
    assert steps(scan) == ["decode", "window", "polarity"]
    assert "saturated-image" in {gate.code for gate in scan.warnings}


@pytest.mark.parametrize(("share", "is_told"), [(0.4, False), (0.6, True)])
def test_black_over_half_of_an_image_is_told(make_dataset, write, stored, share, is_told):
    collimated = stored.clip(100, 4000)
    collimated[: round(share * len(stored))] = 0
    scan = read_radiograph(write(make_dataset(collimated, WindowCenter=2048, WindowWidth=4096)))
    assert ("saturated-image" in {gate.code for gate in scan.warnings}) == is_told


def test_pixels_are_float32_between_0_and_1(make_dataset, write):
    pixels = read_radiograph(write(make_dataset())).pixels
    assert pixels.dtype == np.float32
    assert pixels.min() == 0
    assert pixels.max() == 1

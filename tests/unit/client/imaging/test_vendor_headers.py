"""Technical headers of sixteen real files (``vendor_headers.json``) on a drawn breast's pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary

from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_simulations.phantoms.dicom_writer import file_meta
from mamfed_simulations.phantoms.transfer_syntaxes import SYNTAXES, encode

HEADERS = json.loads(Path(__file__).with_name("vendor_headers.json").read_text())
SCREENING = [
    "ge_essential_53101_lcc_3062x2394",
    "ge_essential_53101_r_xccl_2294x1914",
    "ge_essential_53101_rcc_2294x1914",
    "ge_essential_5340_lcc_3062x2394",
    "ge_essential_mlo_CORRUPT_jpegll_bitstream",
    "ge_senographe_essential_mlo_jpegll_voilut3",
    "hologic_dimensions_rsna_10006_lcc_mono1_j2k",
    "hologic_dimensions_rsna_10006_rcc_mono1_j2k",
    "hologic_dimensions_rsna_10006_rmlo_mono1_j2k",
]
OTHER = {
    "clunie_pixelspacing_test_mg_8bit": Reason.MAGNIFICATION,
    "hologic_dimensions_dbt_j2k_4frames_128crop": Reason.TOMOSYNTHESIS,
    "hologic_dimensions_tomo_as_ct_TRUNCATED_pixeldata": Reason.TOMOSYNTHESIS,
    "hologic_dsm_stereo_scout_mono1_512": Reason.BIOPSY,
    "nema_wg04_MG1_j2k_lossy_RG_SC": Reason.SECONDARY_CAPTURE,
    "nema_wg04_MG1_jpeg_extended12bit_UNDECODABLE": Reason.SECONDARY_CAPTURE,
    "siemens_inspiration_stereo_overlay_outofbounds": Reason.BIOPSY,
}
SYNTAX_NAMES = {uid.name: name for name, uid in SYNTAXES.items()}
UIDS = {names[0]: uid for uid, names in UID_dictionary.items()}


def with_elements(dataset, elements):
    for keyword, element in elements.items():
        is_sequence = isinstance(element, list) and element and isinstance(element[0], dict)
        if is_sequence:
            element = [with_elements(Dataset(), item) for item in element]
        setattr(dataset, keyword, element)
    return dataset


def stored_values(dataset, breast, inside):
    """Tissue from one end to the other of the first LUT or window, around it the unit's air."""
    if "VOILUTSequence" in dataset:
        for item in dataset.VOILUTSequence:
            count, _, bits = item.LUTDescriptor
            ramp = np.linspace(0, 2**bits - 1, count)
            item.LUTData = np.rint(ramp).astype("<u2").tobytes()
        count, low, _ = dataset.VOILUTSequence[0].LUTDescriptor
        span = count - 1
    elif "WindowCenter" in dataset:
        centre, span = (np.ravel(dataset[key].value)[0] for key in ("WindowCenter", "WindowWidth"))
        low, span = centre - span / 4, span / 2  # the middle of a sigmoid, which is straight
    else:
        low, span = 100, 2**dataset.BitsStored - 200
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    tone = 1 - breast if inverted else breast
    air = dataset.get("PixelPaddingValue", (2**dataset.BitsStored - 1) * inverted)
    return np.rint(np.where(inside, low + tone * span, air)).clip(0, 2**dataset.BitsStored - 1)


def file_of(name, drawing, path, **elements):
    header = dict(HEADERS[name])
    sop_class, syntax = UIDS[header.pop("SOPClass")], header.pop("TransferSyntax")
    dataset = with_elements(Dataset(), header)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.8.498.18"
    breast, inside = drawing.breast(dataset.Rows // 8, dataset.Columns // 8)
    if dataset.get("ImageLaterality", "L") == "R":
        breast, inside = breast[:, ::-1], inside[:, ::-1]
    dataset.Rows, dataset.Columns = breast.shape
    stored = stored_values(dataset, breast, inside)
    frames = int(dataset.get("NumberOfFrames", 1))
    eight = dataset.BitsAllocated == 8
    data = stored.astype(np.uint8 if eight else "<u2").tobytes() * frames
    dataset.add_new("PixelData", "OB" if eight else "OW", data + b"\0" * (len(data) % 2))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = file_meta(dataset)
    syntax = SYNTAX_NAMES.get(syntax)
    if frames == 1 and syntax:
        encode(dataset, syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes(), breast, inside


def test_every_header_has_a_verdict():
    assert {*SCREENING, *OTHER} == HEADERS.keys()


@pytest.mark.parametrize("name", SCREENING)
def test_a_screening_view_of_a_real_unit_is_read_as_what_it_shows(name, drawing, tmp_path):
    data, breast, inside = file_of(name, drawing, tmp_path / "a.dcm")
    mammogram = read_dicom(data, "a.dcm")
    assert mammogram.facts.vendor == ("GE" if name.startswith("ge") else "Hologic")
    assert mammogram.facts.laterality == HEADERS[name]["ImageLaterality"]
    assert mammogram.facts.view == HEADERS[name]["ViewPosition"]
    assert np.corrcoef(mammogram.grey[inside], breast[inside])[0, 1] > 0.99
    assert mammogram.grey[~inside].max() < np.percentile(mammogram.grey[inside], 1)
    sample, _ = prepare(mammogram, None, 96)
    assert 0.3 < sample.breast_mask.mean() < 0.7


@pytest.mark.parametrize("name", OTHER)
def test_another_object_of_a_real_unit_is_refused_by_its_name(name, drawing, tmp_path):
    data, _, _ = file_of(name, drawing, tmp_path / "a.dcm")
    with pytest.raises(FileRejected) as caught:
        read_dicom(data, "a.dcm")
    assert caught.value.reason is OTHER[name]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"SeriesDescription": "Biopsy, specimen"}, Reason.SPECIMEN),
        ({"SeriesDescription": "Präparateradiographie"}, Reason.SPECIMEN),
        ({"SeriesDescription": "Stanzbiopsie links"}, Reason.BIOPSY),
        ({"ProtocolName": "STÉRÉOTAXIE"}, Reason.BIOPSY),
        ({"ImageType": ["DERIVED", "PRIMARY", "STEREO", "RIGHT"]}, Reason.BIOPSY),
        ({"ImageType": ["DERIVED", "PRIMARY", "POST_BIOPSY"]}, Reason.BIOPSY),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, Reason.SECONDARY_CAPTURE),
        ({"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]}, Reason.SECONDARY_CAPTURE),
        ({"QualityControlImage": "YES"}, Reason.QUALITY_CONTROL),
        ({"CalibrationImage": "YES"}, Reason.QUALITY_CONTROL),
        ({"BodyPartExamined": "PHANTOM"}, Reason.QUALITY_CONTROL),
    ],
)
def test_one_more_element_makes_a_real_header_another_object(said, reason, drawing, tmp_path):
    data, _, _ = file_of(SCREENING[3], drawing, tmp_path / "a.dcm", **said)
    with pytest.raises(FileRejected) as caught:
        read_dicom(data, "a.dcm")
    assert caught.value.reason is reason

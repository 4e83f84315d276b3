"""Synthetic mammograms: what is drawn, how a vendor stores it, what a cohort holds."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pydicom
import pytest

from mamfed_common.errors import OutputError
from mamfed_common.runtime.seeds import generator
from mamfed_simulations.phantoms import lesions
from mamfed_simulations.phantoms.anatomy import Scene
from mamfed_simulations.phantoms.phantom import Population, draw_patient, draw_view, invent_patient
from mamfed_simulations.phantoms.vendors import VENDORS, apply_look, write_cohort, write_dicom

SHAPE = (241, 187)  # odd on purpose
LOOKS = list(VENDORS.values())
LOOK_NAMES = list(VENDORS)
every_vendor = pytest.mark.parametrize("look", LOOKS, ids=LOOK_NAMES)


def draw_many(count, *, malignant, shape=SHAPE, population=None):
    population = population or Population()
    return [
        phantom
        for number in range(count)
        for phantom in draw_patient(
            generator(11, "test", malignant, number), shape, population, malignant=malignant
        )
    ]


@pytest.fixture(scope="module")
def malignant_phantoms():
    return draw_many(15, malignant=True)


@pytest.fixture(scope="module")
def benign_phantoms():
    return draw_many(15, malignant=False)


def displayed(look, pixels):
    """Grey in [0, 1], tissue bright, from stored values."""
    largest = 2**look.detector.bits_stored - 1
    grey = pixels.astype(np.float64) / largest
    return 1 - grey if look.display.photometric == "MONOCHROME1" else grey


def dice_by_threshold(grey, phantom, thresholds):
    """Dice of "lesion is what is brighter than the threshold" within the breast."""
    inside, lesion = grey[phantom.breast_mask], phantom.mask[phantom.breast_mask]
    found = [inside >= threshold for threshold in thresholds]
    return [2 * (f & lesion).sum() / max(f.sum() + lesion.sum(), 1) for f in found]


def threshold_table(look, patients):
    thresholds = np.linspace(0.02, 0.98, 49)
    table = []
    for number in range(patients):
        rng = generator(23, look.name, number)
        shape = look.detector.shape(0.1)
        for phantom in draw_patient(rng, shape, look.population, malignant=True):
            grey = displayed(look, apply_look(phantom, look, rng))
            table.append(dice_by_threshold(grey, phantom, thresholds))
    return np.array(table)


@every_vendor
def test_no_brightness_threshold_finds_the_lesions(look):
    table = threshold_table(look, 30)
    one_for_all, one_per_image = table.mean(axis=0).max(), table.max(axis=1).mean()
    assert one_for_all < 0.28
    assert one_per_image < 0.40  # chosen by looking at the answer


def test_the_threshold_measure_would_notice_a_lesion_that_is_simply_bright(malignant_phantoms):
    phantom = malignant_phantoms[0]
    grey = np.where(phantom.mask, 0.9, 0.3)
    assert dice_by_threshold(grey, phantom, [0.5]) == [1.0]


def test_the_same_seed_draws_the_same_phantom_and_another_seed_another():
    def draw(seed):
        return draw_patient(generator(seed), SHAPE, Population(), malignant=True)

    for first, second in zip(draw(5), draw(5), strict=True):
        assert first.attenuation.tobytes() == second.attenuation.tobytes()
        assert first.mask.tobytes() == second.mask.tobytes()
    assert not np.array_equal(draw(5)[0].attenuation, draw(6)[0].attenuation)


def test_a_malignant_phantom_has_a_mask_inside_the_breast(malignant_phantoms):
    for phantom in malignant_phantoms:
        assert phantom.finding in {"mass", "calcification", "mass|calcification"}
        assert phantom.mask.shape == phantom.breast_mask.shape == phantom.attenuation.shape == SHAPE
        assert phantom.mask.any()
        assert not (phantom.mask & ~phantom.breast_mask).any()
        assert 0.003 < phantom.mask.sum() / phantom.breast_mask.sum() < 0.15


def test_a_benign_phantom_has_look_alikes_but_an_empty_mask(benign_phantoms):
    assert not any(phantom.mask.any() or phantom.finding for phantom in benign_phantoms)
    assert any(phantom.look_alikes for phantom in benign_phantoms)


def test_malignant_phantoms_have_look_alikes_too(malignant_phantoms):
    assert any(phantom.look_alikes for phantom in malignant_phantoms)


def test_attenuation_stays_in_range_and_air_is_black(malignant_phantoms):
    for phantom in malignant_phantoms:
        assert phantom.attenuation.dtype == np.float32
        assert phantom.attenuation.min() >= 0
        assert phantom.attenuation.max() <= 1
        assert not phantom.attenuation[~phantom.breast_mask].any()


def test_only_the_mlo_view_shows_the_pectoral_muscle(benign_phantoms):
    for phantom in benign_phantoms:
        side = slice(0, 6) if phantom.laterality == "L" else slice(-6, None)
        corner = phantom.attenuation[6:16, side]
        if phantom.view == "MLO":
            assert corner.mean() > 0.45
        else:
            assert corner.max() == 0


def test_the_views_of_a_patient_share_breast_and_finding(malignant_phantoms):
    for cc, mlo in zip(malignant_phantoms[::2], malignant_phantoms[1::2], strict=True):
        assert (cc.view, mlo.view) == ("CC", "MLO")
        assert cc.laterality == mlo.laterality
        assert cc.density == mlo.density
        assert cc.finding == mlo.finding


def test_a_right_breast_is_the_mirror_image_of_a_left_one():
    patient = invent_patient(generator(3), Population(), malignant=True)
    left, right = (
        draw_view(generator(4), SHAPE, Population(), patient._replace(laterality=side), "MLO")
        for side in ("L", "R")
    )
    assert left.breast_mask[:, 0].any()
    assert not left.breast_mask[:, -1].any()
    np.testing.assert_array_equal(left.attenuation, right.attenuation[:, ::-1])
    np.testing.assert_array_equal(left.mask, right.mask[:, ::-1])
    np.testing.assert_array_equal(left.breast_mask, right.breast_mask[:, ::-1])


def test_a_dense_breast_is_brighter_than_a_fatty_one_and_says_so():
    patient = invent_patient(generator(3), Population(), malignant=False)
    fatty, dense = (
        draw_view(generator(4), SHAPE, Population(), patient._replace(density=density), "CC")
        for density in ("A", "D")
    )
    assert (fatty.density, dense.density) == ("A", "D")
    assert (
        dense.attenuation[dense.breast_mask].mean()
        > 1.2 * fatty.attenuation[fatty.breast_mask].mean()
    )


def flat_scene():
    """An even breast that fills the image: what a finding adds is all there is to see."""
    shape = (200, 160)
    return Scene(
        attenuation=np.full(shape, 0.3, np.float32),
        breast_mask=np.ones(shape, bool),
        muscle=np.zeros(shape, bool),
        room=np.full(shape, 40, np.float32),
        nipple=(150.0, 100.0),
        size=200.0,
        depth=150.0,
        mask=np.zeros(shape, bool),
        taken=[],
    )


def test_the_mask_of_a_mass_is_its_body_without_the_spicules():
    scene = flat_scene()
    lesions.draw_mass(generator(1), scene, (80.0, 100.0), 0.1, contrast=1, spiculation=1)
    added = scene.attenuation - np.float32(0.3)
    assert scene.mask.sum() == pytest.approx(np.pi * 20**2, rel=0.25)
    assert added[scene.mask].min() > 0.01
    assert (added[~scene.mask] > 0.05).any()  # the spicules
    assert added[scene.mask].mean() > 5 * added[~scene.mask].mean()


def test_the_mask_of_a_cluster_holds_every_speck_and_little_more():
    scene = flat_scene()
    lesions.draw_cluster(generator(1), scene, (80.0, 100.0), 0.07, contrast=1)
    specks = scene.attenuation > 0.3 + 0.15
    assert specks.any()
    assert not (specks & ~scene.mask).any()
    assert scene.mask.sum() < np.pi * (14 + 4) ** 2


def test_benign_findings_brighten_the_image_and_leave_the_mask_empty():
    for draw in (
        lambda rng, scene: lesions.draw_cyst(rng, scene, 0.05),
        lambda rng, scene: lesions.draw_lymph_node(rng, scene, axillary=True),
        lambda rng, scene: lesions.draw_lymph_node(rng, scene, axillary=False),
        lesions.draw_vessel,
        lesions.draw_coarse_calcification,
    ):
        scene = flat_scene()
        draw(generator(2), scene)
        assert scene.attenuation.max() > 0.33
        assert not scene.mask.any()


def test_findings_keep_apart_where_there_is_room():
    scene = flat_scene()
    first = lesions.find_place(generator(7), scene, 0.05)
    second = lesions.find_place(generator(7), scene, 0.05)  # the same dice, another place
    assert np.hypot(first[0] - second[0], first[1] - second[1]) >= 20


@pytest.fixture
def example(malignant_phantoms):
    return next(p for p in malignant_phantoms if (p.laterality, p.view) == ("R", "MLO"))


def save(path, phantom, look, *, patient_id="SYN1", syntax="explicit"):
    pixels = apply_look(phantom, look, generator(9))
    write_dicom(
        path, pixels, phantom, look, patient_id=patient_id, spacing_mm=0.4277, syntax=syntax
    )
    return pixels, pydicom.dcmread(path)  # no force: the preamble has to be there


@every_vendor
def test_a_file_says_what_was_drawn(tmp_path, example, look):
    pixels, dataset = save(tmp_path / "a.dcm", example, look)
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
    assert dataset.SOPInstanceUID.is_valid
    assert dataset.PresentationIntentType == "FOR PRESENTATION"
    assert dataset.get("Modality", "MG") == "MG"
    assert dataset.get("ConversionType", "") == look.storage.conversion_type
    assert dataset.get("Manufacturer", look.manufacturer) == look.manufacturer
    assert dataset.ManufacturerModelName == look.model
    assert (dataset.ImageLaterality, dataset.ViewPosition) == ("R", "MLO")
    assert list(dataset.PatientOrientation) == ["P", "FL"]
    assert dataset.ViewCodeSequence[0].CodeValue == "399368009"
    assert list(dataset.ImagerPixelSpacing) == [0.4277, 0.4277]
    assert ("PixelSpacing" in dataset) == look.display.pixel_spacing
    assert dataset.PhotometricInterpretation == look.display.photometric
    inverse = look.display.photometric == "MONOCHROME1"
    shape = "INVERSE" if inverse else "IDENTITY"
    assert dataset.get("PresentationLUTShape", shape) == shape
    assert (dataset.BitsAllocated, dataset.PixelRepresentation) == (16, 0)
    assert dataset.BitsStored == look.detector.bits_stored == dataset.HighBit + 1
    assert dataset.pixel_array.max() < 2**dataset.BitsStored
    np.testing.assert_array_equal(dataset.pixel_array, pixels)


@every_vendor
def test_a_window_shows_the_breast_between_black_and_white(tmp_path, example, look):
    _, dataset = save(tmp_path / "a.dcm", example, look)
    shown = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset, index=0, prefer_lut=False)
    black, white = (
        shown[example.breast_mask].astype(float).min(),
        shown[example.breast_mask].max(),
    )
    middle = np.median(shown[example.breast_mask])
    assert black + 0.05 * (white - black) < middle < white - 0.05 * (white - black)


def test_windows_are_counted_from_the_top_in_a_monochrome1_file(tmp_path, example):
    _, dataset = save(tmp_path / "a.dcm", example, VENDORS["borealis"])
    assert list(dataset.WindowCenter) == [7864] * 3  # (1 - 0.52) * 2 ** 14
    assert dataset.VOILUTFunction == "SIGMOID"
    _, dataset = save(tmp_path / "b.dcm", example, VENDORS["aurora"])
    assert list(dataset.WindowCenter) == [1843] * 3  # 0.45 * 2 ** 12
    assert list(dataset.WindowWidth) == [2048, 1638, 2662]  # 0.5, 0.4 and 0.65 of 2 ** 12


def test_aurora_prefers_a_voi_lut_that_does_what_a_linear_window_would(tmp_path, example):
    _, dataset = save(tmp_path / "a.dcm", example, VENDORS["aurora"])
    assert len(dataset.VOILUTSequence) == 3
    assert list(dataset.VOILUTSequence[0].LUTDescriptor) == [3482, 102, 16]
    shown = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset) / 65535
    # PS3.3 C.11.2.1.2.1 for centre 0.45 and width 0.85 of 4096 levels.
    expected = (dataset.pixel_array - (1843 - 0.5)) / (3482 - 1) + 0.5
    np.testing.assert_allclose(shown, expected.clip(0, 1), atol=1 / 65535)
    del dataset.VOILUTSequence
    window = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset) / 4095
    assert (
        np.abs(window - shown)[example.breast_mask].max() > 0.03
    )  # the windows show another curve


@pytest.mark.parametrize(
    ("vendor", "syntax"),
    [
        ("aurora", "1.2.840.10008.1.2.4.70"),
        ("borealis", "1.2.840.10008.1.2.4.90"),
        ("cirrus", "1.2.840.10008.1.2.1"),
    ],
)
def test_each_vendor_has_a_transfer_syntax_of_its_own(tmp_path, example, vendor, syntax):
    _, dataset = save(tmp_path / "a.dcm", example, VENDORS[vendor], syntax="")
    assert dataset.file_meta.TransferSyntaxUID == syntax


def test_some_files_of_borealis_lost_modality_and_image_type(tmp_path, example):
    look = VENDORS["borealis"]
    pixels, found = apply_look(example, look, generator(9)), []
    for number in range(40):
        patient = {"patient_id": f"SYN{number}", "spacing_mm": 0.1}
        write_dicom(tmp_path / "a.dcm", pixels, example, look, **patient)
        dataset = pydicom.dcmread(tmp_path / "a.dcm", stop_before_pixels=True)
        assert ("Modality" in dataset) == ("ImageType" in dataset)
        found.append("Modality" in dataset)
    assert 20 < sum(found) < 38


def test_cirrus_lays_an_overlay_over_the_edge_and_leaves_the_pixels_alone(tmp_path, example):
    _, dataset = save(tmp_path / "a.dcm", example, VENDORS["cirrus"])
    top, left = dataset[0x60000050].value
    assert top + dataset[0x60000010].value - 1 > dataset.Rows
    assert left + dataset[0x60000011].value - 1 > dataset.Columns
    marks = dataset.overlay_array(0x6000)
    assert marks.shape == (48, 64)
    assert marks.sum() == 2 * 48 + 2 * 62
    assert dataset.pixel_array.max() < 2**10


def test_some_patients_of_cirrus_have_files_without_manufacturer(tmp_path, example):
    named = [
        "Manufacturer" in save(tmp_path / "a.dcm", example, look, patient_id=f"SYN{number}")[1]
        for look in (VENDORS["cirrus"], VENDORS["aurora"])
        for number in range(20)
    ]
    assert 2 <= named[:20].count(False) <= 9
    assert all(named[20:])


@every_vendor
def test_monochrome1_is_inverted_on_disk_and_monochrome2_is_not(tmp_path, example, look):
    _, dataset = save(tmp_path / "a.dcm", example, look)
    tissue = np.median(dataset.pixel_array[example.breast_mask])
    air = np.median(dataset.pixel_array[~example.breast_mask])
    assert (tissue < air) == (dataset.PhotometricInterpretation == "MONOCHROME1")


def test_the_vendors_use_both_photometric_interpretations_and_three_depths():
    assert {look.display.photometric for look in LOOKS} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({look.detector.bits_stored for look in LOOKS}) == 3


def test_padding_is_the_largest_value_and_never_tissue(tmp_path, example):
    _, dataset = save(tmp_path / "a.dcm", example, VENDORS["borealis"])
    padded = dataset.pixel_array == dataset.PixelPaddingValue
    assert dataset.PixelPaddingValue == dataset.pixel_array.max() == 2**14 - 1
    assert padded[0, 0]  # the nipple side of a right breast
    assert not (padded & example.breast_mask).any()


def test_the_vendors_see_one_scene_in_different_greys(example):
    medians = sorted(
        np.median(displayed(look, apply_look(example, look, generator(9)))[example.breast_mask])
        for look in LOOKS
    )
    assert min(np.diff(medians)) > 0.03


@every_vendor
def test_a_breast_is_as_tall_as_breasts_are(look):
    rng = generator(2, look.name)
    shape = look.detector.shape(0.1)
    phantom = draw_patient(rng, shape, look.population, malignant=False)[0]
    tall_mm = phantom.breast_mask.any(axis=1).sum() * look.detector.spacing_mm / 0.1
    assert 140 < tall_mm < 210


def read_cohort(folder):
    with (folder / "labels.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def cohort(folder, **counts):
    counts = {"benign": 4, "malignant": 3, "seed": 1, **counts}
    write_cohort(folder, VENDORS["aurora"], scale=0.08, **counts)
    return read_cohort(folder)


def test_a_cohort_has_a_table_and_masks_for_its_malignant_images(tmp_path):
    rows = cohort(tmp_path)
    expected = "image,mask,patient_id,laterality,view,pathology,birads,density,finding,"
    assert ",".join(rows[0]) == expected + "spacing_mm,vendor,source"
    assert [row["pathology"] == "malignant" for row in rows] == [False] * 4 + [True] * 3
    assert [row["view"] for row in rows] == ["CC", "MLO", "CC", "MLO", "CC", "MLO", "CC"]
    assert len({row["patient_id"] for row in rows}) == 4
    for row in rows:
        dataset = pydicom.dcmread(tmp_path / row["image"])
        assert dataset.PatientID == row["patient_id"]
        assert dataset.ImageLaterality == row["laterality"]
        assert dataset.ImagerPixelSpacing[0] == float(row["spacing_mm"])
        assert row["birads"] in {"normal": "1", "benign": "2", "malignant": "45"}[row["pathology"]]
        assert bool(row["mask"]) == bool(row["finding"]) == (row["pathology"] == "malignant")
        if row["mask"]:
            mask = cv2.imread(str(tmp_path / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (dataset.Rows, dataset.Columns)
            assert set(np.unique(mask)) == {0, 255}
    assert len(list((tmp_path / "masks").iterdir())) == 3
    assert len(list((tmp_path / "images").iterdir())) == 7


def file_bytes(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_patients(tmp_path):
    first = cohort(tmp_path / "a")
    cohort(tmp_path / "b")
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")
    other = cohort(tmp_path / "c", seed=2)
    assert not {r["patient_id"] for r in first} & {r["patient_id"] for r in other}


def test_a_larger_cohort_holds_the_patients_of_a_smaller_one(tmp_path):
    small = cohort(tmp_path / "small", benign=2, malignant=2)
    large = cohort(tmp_path / "large", benign=4, malignant=4)
    assert {r["patient_id"] for r in small} < {r["patient_id"] for r in large}


def test_a_folder_that_cannot_be_written_ends_with_an_output_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        cohort(tmp_path / "taken")

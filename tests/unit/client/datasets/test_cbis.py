import csv

import numpy as np
import pytest

from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label, Pathology

MASS = [
    "patient_id",
    "breast_density",
    "left or right breast",
    "image view",
    "abnormality id",
    "abnormality type",
    "mass shape",
    "mass margins",
    "assessment",
    "pathology",
    "subtlety",
    "image file path",
    "cropped image file path",
    "ROI mask file path",
]
CALC = [{"breast_density": "breast density", "mass shape": "calc type"}.get(c, c) for c in MASS]
STUDY = "1.3.6.1.4.1.9590.100.1.2.1"


class Download:
    """CBIS-DDSM under construction."""

    def __init__(self, folder, drawing):
        self.folder, self.drawing = folder, drawing
        self.tables = {}

    def row(
        self, patient="P_00001", pathology="MALIGNANT", *, abnormality=1, assessment="4", **more
    ):
        """Add a table row as it is written, with its quoted trailing newlines."""
        kind, part = more.get("kind", "mass"), more.get("part", "train")
        side, view = more.get("side", "LEFT"), more.get("view", "CC")
        word = {"train": "Training", "test": "Test"}[part]
        image = f"{kind.title()}-{word}_{patient}_{side}_{view}"
        finding = f"{image}_{abnormality}"
        columns = MASS if kind == "mass" else CALC
        cells = [patient, "3", side, view, abnormality, kind, "OVAL", "SPICULATED", assessment]
        cells += [pathology, "4", f"{image}/{STUDY}/{STUDY}.2/000000.dcm"]
        cells += [f"{finding}/{STUDY}/{STUDY}.3/000001.dcm\n", f"{finding}/{STUDY}/x/000000.dcm\n"]
        table = self.tables.setdefault(f"{kind}_case_description_{part}_set.csv", [columns])
        table.append(cells)
        return image

    def file(self, name, kind="junk", *, file="1-1.dcm", series="1.000000-ROI mask images-17"):
        path = self.folder / "CBIS-DDSM" / name / "08-29-2017-DDSM-NA-94942" / series / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "mask":
            self.drawing.dicom(path, self.drawing.lesion(61, 47) * 4095)
        elif kind == "crop":
            self.drawing.dicom(path, np.arange(30 * 20).reshape(30, 20))
        else:
            path.write_bytes(kind if isinstance(kind, bytes) else b"")
        return path

    def read(self):
        for name, rows in self.tables.items():
            with (self.folder / name).open("w", newline="") as file:
                csv.writer(file).writerows(rows)
        return read_folder(self.folder)


@pytest.fixture
def download(tmp_path, drawing):
    return Download(tmp_path, drawing)


def masks_of(row):
    return [annotation.path for annotation in row.annotations]


def test_an_abnormality_its_image_and_its_mask_are_joined(download):
    image = download.row(assessment="5")
    image_path = download.file(image, series="1.000000-full mammogram images-63992")
    mask = download.file(f"{image}_1", "mask")
    manifest = download.read()
    (row,) = manifest.rows
    assert (manifest.layout, manifest.rejected) == ("cbis-ddsm", [])
    assert (row.row_number, row.image, row.image_path) == (2, image, image_path)
    assert masks_of(row) == [mask]
    assert (row.patient_id, row.label) == ("P_00001", Label(Pathology.MALIGNANT, (5,)))
    assert (row.laterality, row.view, row.density) == ("L", "CC", "C")
    assert row.allow == {Reason.SECONDARY_CAPTURE, Reason.NO_LATERALITY}


@pytest.mark.parametrize(("first", "second"), [("mask", "crop"), ("crop", "mask")])
def test_mask_and_crop_are_told_apart_whichever_comes_first(download, first, second):
    image = download.row()
    download.file(image)
    paths = {
        first: download.file(f"{image}_1", first, file="1-1.dcm"),
        second: download.file(f"{image}_1", second, file="1-2.dcm"),
    }
    assert masks_of(download.read().rows[0]) == [paths["mask"]]


def test_mask_and_crop_are_told_apart_in_folders_of_their_own(download):
    image = download.row()
    download.file(image)
    mask = download.file(f"{image}_1", "mask", series="1.000000-cropped images-1")
    download.file(f"{image}_1", "crop", series="1.000000-ROI mask images-2")
    assert masks_of(download.read().rows[0]) == [mask]


@pytest.mark.parametrize("bytes_of_mask", [100_000, 200_000])
def test_an_uncompressed_mask_is_known_by_its_size_without_being_opened(download, bytes_of_mask):
    image = download.row()
    download.file(image, bytes(200_000 + 700))
    download.file(f"{image}_1", bytes(45_000), file="1-1.dcm")
    mask = download.file(f"{image}_1", bytes(bytes_of_mask + 900), file="1-2.dcm")
    assert masks_of(download.read().rows[0]) == [mask]


def test_files_of_which_none_is_a_mask_are_refused(download):
    image = download.row()
    download.file(image)
    download.file(f"{image}_1", "crop", file="1-1.dcm")
    download.file(f"{image}_1", b"broken", file="1-2.dcm")
    assert download.read().rejected[0].reason is Reason.UNREADABLE_MASK


def test_a_broken_file_beside_the_mask_does_not_matter(download):
    image = download.row()
    download.file(image)
    download.file(f"{image}_1", b"broken", file="1-1.dcm")
    mask = download.file(f"{image}_1", "mask", file="1-2.dcm")
    assert masks_of(download.read().rows[0]) == [mask]


def test_abnormalities_of_an_image_become_one_row(download):
    image = download.row(pathology="BENIGN", abnormality=1, assessment="2")
    download.row(pathology="MALIGNANT", abnormality=2, assessment="5")
    download.row(pathology="MALIGNANT", abnormality=3, assessment="4")
    download.file(image)
    masks = [download.file(f"{image}_{number}", "mask") for number in (1, 2, 3)]
    manifest = download.read()
    (row,) = manifest.rows
    assert row.label == Label(Pathology.MALIGNANT, (2, 5, 4))
    assert masks_of(row) == masks[1:]
    assert len(manifest.statements) == 1


def test_without_a_malignant_one_all_masks_that_are_there_are_taken(download):
    image = download.row(pathology="BENIGN_WITHOUT_CALLBACK", abnormality=1, assessment="2")
    download.row(pathology="BENIGN", abnormality=2, assessment="2")
    download.row(pathology="BENIGN", abnormality=3, assessment="0")
    download.file(image)
    masks = [download.file(f"{image}_{number}", "mask") for number in (1, 3)]
    (row,) = download.read().rows
    assert row.label == Label(Pathology.BENIGN, (2, 0))
    assert masks_of(row) == masks


def test_a_missing_mask_of_one_malignant_abnormality_refuses_the_image(download):
    image = download.row(abnormality=1)
    download.row(abnormality=2)
    download.file(image)
    download.file(f"{image}_1", "mask")
    manifest = download.read()
    assert manifest.rejected[0].reason is Reason.MISSING_MASK
    assert manifest.statements[0].label == Label(Pathology.MALIGNANT, (4,))


@pytest.mark.parametrize("copies", [0, 2])
def test_an_image_must_be_there_exactly_once(download, copies):
    image = download.row(pathology="BENIGN")
    for number in range(copies):
        download.file(image, file=f"1-{number + 1}.dcm")
    (rejection,) = download.read().rejected
    assert (rejection.reason, rejection.image) == (Reason.MISSING_IMAGE, image)
    assert f"{copies} files" in rejection.detail
    assert "P_00001" not in rejection.detail


def test_folders_are_found_wherever_they_lie_and_others_do_not_matter(download):
    image = download.row(pathology="BENIGN")
    path = download.folder / "manifest-1" / "deep" / image / "1-1.dcm"
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "LICENSE.txt").touch()
    download.file(f"{image}x")
    assert [row.image_path for row in download.read().rows] == [path]


def test_row_numbers_go_on_from_table_to_table(download):
    names = [download.row("P_00001", "BENIGN"), download.row("P_00002", "BENIGN", kind="calc")]
    for name in names:
        download.file(name)
    manifest = download.read()
    # The first table ends on line 4: its row holds two quoted newlines.
    assert [(row.row_number, row.image) for row in manifest.rows] == [(2, names[0]), (4, names[1])]
    assert [row.density for row in manifest.rows] == ["C", "C"]
    assert [statement.row_number for statement in manifest.statements] == [2, 4]


def in_both_tables(download, first, second):
    """One breast's image with a malignant mass and a malignant calcification; rows of it."""
    masks = []
    for kind, part, content in (("mass", "train", first), ("calc", "test", second)):
        image = download.row(kind=kind, part=part)
        if content is not None:
            download.file(image, content)
        masks.append(download.file(f"{image}_1", "mask"))
    return download.read(), masks


def test_one_picture_in_the_tables_of_masses_and_of_calcifications_takes_the_masks_of_both(
    download,
):
    manifest, masks = in_both_tables(download, bytes(90_000), bytes(90_700))
    (row,) = manifest.rows
    assert row.image == "Mass-Training_P_00001_LEFT_CC"
    assert masks_of(row) == masks
    assert (row.split, manifest.rejected, len(manifest.statements)) == ("", [], 1)


@pytest.mark.parametrize("second", [bytes(90_000 + 17_000), None])
def test_images_of_one_view_that_differ_in_size_or_are_missing_stay_apart(download, second):
    manifest, masks = in_both_tables(download, bytes(90_000), second)
    assert masks_of(manifest.rows[0]) == masks[:1]
    assert len(manifest.rows) + len(manifest.rejected) == 2


def test_the_official_split_is_taken(download):
    download.file(download.row("P_00001", "BENIGN"))
    download.file(download.row("P_00001", "BENIGN", kind="calc"))
    download.file(download.row("P_00002", "BENIGN", part="test"))
    manifest = download.read()
    split = {row.patient_id: row.split for row in manifest.rows}
    assert split == {"P_00001": "train", "P_00002": "test"}
    assert {s.patient_id: s.split for s in manifest.statements} == split


def test_a_split_that_puts_a_patient_in_two_parts_is_left_aside(download):
    download.file(download.row("P_00001", "BENIGN"))
    download.file(download.row("P_00001", "BENIGN", kind="calc", part="test", side="RIGHT"))
    download.file(download.row("P_00002", "BENIGN", part="test"))
    manifest = download.read()
    assert [row.split for row in manifest.rows] == ["", "", ""]
    assert [statement.split for statement in manifest.statements] == ["", "", ""]
    assert manifest.rejected == []


def test_odd_cells_cost_only_their_own_image(download):
    download.row("P_00001", "MALIGNNT")
    download.row("P_00002", side="LEFFT")
    download.row("", "BENIGN")
    good = download.row("P_00004", "BENIGN")
    download.file(good)
    manifest = download.read()
    reasons = [Reason.BAD_LABEL, Reason.BAD_LATERALITY, Reason.NO_PATIENT]
    assert [rejection.reason for rejection in manifest.rejected] == reasons
    assert [row.image for row in manifest.rows] == [good]
    assert manifest.statements[0].label is None

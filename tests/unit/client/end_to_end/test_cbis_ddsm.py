"""CBIS-DDSM, whose crops and masks swap places: from the download to the samples."""

import csv

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

HEADER = (
    "patient_id,{},left or right breast,image view,abnormality id,abnormality type,{},{},"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
HEADERS = {
    "mass": HEADER.format("breast_density", "mass shape", "mass margins").split(","),
    "calc": HEADER.format("breast density", "calc type", "calc distribution").split(","),
}
STUDY, SERIES = "08-29-2017-DDSM-NA-94942", "1.000000-full mammogram images-63992"


class Cbis:
    """CBIS-DDSM under construction."""

    def __init__(self, folder, dicom):
        self.folder, self.dicom = folder, dicom
        self.tables = {kind: [header] for kind, header in HEADERS.items()}

    def finding(self, patient, side, view, pathology, *, kind="mass", number=1):
        """Add a row of a table; the names of the files in it are not those that download."""
        image = f"{kind.title()}-Training_{patient}_{side}_{view}"
        assessment = 5 if pathology == "MALIGNANT" else 2
        row = [patient, 2, side, view, number, kind, "OVAL", "ILL_DEFINED", assessment, pathology]
        row += [4, f"{image}/1.3.6/1.3.6/000000.dcm", f"{image}_{number}/1.3.6/1.3.6/000000.dcm"]
        self.tables[kind].append([*row, f"{image}_{number}/1.3.6/1.3.6/000001.dcm\n"])
        return image

    def image(self, name, scene, syntax="rle"):
        self._write(name, f"{SERIES}/1-1.dcm", scene.grey, bits=16, syntax=syntax)

    def outline(self, name, scene, *, mask="1-1.dcm", crop="1-2.dcm"):
        """Write mask and crop into one series: which is first varies."""
        series = "1.000000-ROI mask images-18515"
        self._write(name, f"{series}/{mask}", scene.lesion, bits=8)
        rows, columns = (slice(p - scene.radius, p + scene.radius + 1) for p in (scene.y, scene.x))
        self._write(name, f"{series}/{crop}", scene.grey[rows, columns], bits=16)

    def _write(self, name, file, grey, **options):
        _, _, _, side, view, *_ = name.replace("-", "_").split("_")
        elements = {"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "WSD"}
        elements |= {"PatientID": name, "PatientOrientation": view, "Laterality": side[0]}
        elements |= {"BodyPartExamined": "BREAST"}
        self.dicom(self.folder / "CBIS-DDSM" / name / STUDY / file, grey, **options, **elements)

    def write(self):
        for kind, rows in self.tables.items():
            table = self.folder / f"{kind}_case_description_train_set.csv"
            with table.open("w", newline="") as file:
                csv.writer(file).writerows(rows)
        return self.folder


@pytest.fixture(scope="module")
def cbis(tmp_path_factory, drawn, take_in):
    """A left and a right mass, one image with a mass and a calcification, and a benign one."""
    cbis = Cbis(tmp_path_factory.mktemp("CBIS"), drawn.dicom)
    scenes = {}
    left, right = (drawn.scene(side, seed, lesion=True) for seed, side in enumerate("LR"))
    name = cbis.finding("P_00001", "LEFT", "CC", "MALIGNANT")
    cbis.image(name, left)
    cbis.outline(f"{name}_1", left, mask="1-2.dcm", crop="1-1.dcm")
    scenes[name] = left
    name = cbis.finding("P_00002", "RIGHT", "MLO", "MALIGNANT")
    cbis.image(name, right, syntax="explicit")
    cbis.outline(f"{name}_1", right)
    scenes[name] = right
    scenes |= mass_and_calc(cbis, drawn.scene)
    name = cbis.finding("P_00004", "RIGHT", "CC", "BENIGN_WITHOUT_CALLBACK")
    scenes[name] = drawn.scene("R", 4)
    cbis.image(name, scenes[name])
    return take_in(cbis.write()), scenes


def mass_and_calc(cbis, scene):
    """An image that stands in both tables, in a folder of its own for each."""
    above = scene("L", 3, lesion=True)
    below = scene("L", 3, lesion=True, at=(0.25, 0.66))
    both = np.maximum(above.grey, below.grey)
    names = []
    for kind, lesion in (("mass", above), ("calc", below)):
        name = cbis.finding("P_00003", "LEFT", "MLO", "MALIGNANT", kind=kind)
        cbis.image(name, lesion._replace(grey=both))
        cbis.outline(f"{name}_1", lesion._replace(grey=both))
        names.append(name)
    return {names[0]: above._replace(grey=both, lesion=above.lesion | below.lesion)}


def test_cbis_ddsm_is_counted(cbis):
    taken, _ = cbis
    assert taken.counts("layout", "accepted", "patients") == ("cbis-ddsm", 4, 4)
    assert taken.document["vendors"] == {"unknown": 4}
    assert taken.counts("views", "lateralities") == ({"CC": 2, "MLO": 2}, {"L": 2, "R": 2})
    assert taken.counts("densities", "without_spacing") == ({"B": 4}, 4)
    assert taken.stages == ((1, 1), (3, 3))


@pytest.mark.parametrize("number", [1, 2])
def test_masks_of_cbis_ddsm_lie_on_the_lesion_though_crops_swap_places(cbis, check_lesion, number):
    taken, scenes = cbis
    name = next(name for name in scenes if f"P_0000{number}" in name)
    check_lesion(taken, name, scenes[name])


def test_a_mass_and_a_calcification_of_one_cbis_ddsm_image_are_one_target(cbis, check_lesion):
    taken, scenes = cbis
    name = "Mass-Training_P_00003_LEFT_MLO"
    check_lesion(taken, name, scenes[name])


def test_the_benign_image_of_cbis_ddsm_marks_nothing(cbis, check_normal):
    taken, scenes = cbis
    name = "Mass-Training_P_00004_RIGHT_CC"
    check_normal(taken, name, scenes[name])

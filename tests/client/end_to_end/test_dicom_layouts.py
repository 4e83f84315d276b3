"""Data sets of DICOM files, each laid out as it downloads: from the folder to the samples."""

import csv
import plistlib

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

SUSPICIOUS = "patient has BI-RADS 3-6 or malignant row"


@pytest.fixture(scope="module")
def inbreast(tmp_path_factory, drawn, take_in):
    """Three patients: two with a cancer, of whom one has a normal other breast, one healthy."""
    folder = tmp_path_factory.mktemp("INbreast")
    lines = ["Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"]
    scenes = {}
    for seed, (image, patient, side, view, acr, birads) in enumerate(
        [
            ("20586908", "6c613a14b80a8591", "R", "CC", "4", "4a"),
            ("20586934", "6c613a14b80a8591", "L", "CC", "4", "1"),
            ("22678622", "61b13c59bcba149e", "L", "ML", "2", "5"),
            ("50994354", "0a0c5108270e814e", "L", "CC", " " * 190, "2"),
            ("50994408", "0a0c5108270e814e", "R", "MLO", "1", "1"),
        ]
    ):
        scene = scenes[image] = drawn.scene(side, seed, lesion=birads > "3")
        written_view = "MLO" if view == "ML" else view
        lines.append(f"removed;removed;{side};{written_view};201001;{image};{acr};{birads}")
        drawn.dicom(
            folder / "AllDICOMs" / f"{image}_{patient}_MG_{side}_{view}_ANON.dcm",
            scene.grey,
            bits=14,
            PatientID="removed",
            Manufacturer="SIEMENS",
            ImagerPixelSpacing=["0.07", "0.07"],
            WindowCenter="8192",
            WindowWidth="16384",
        )
        if scene.lesion.any():
            write_plist(folder / "AllXML" / f"{image}.xml", scene)
    (folder / "INbreast.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    return take_in(folder), scenes


def write_plist(path, scene):
    """A mass and, within it, a calcification of one point, as OsiriX exports them."""
    path.parent.mkdir(exist_ok=True)
    outlines = {"Mass": scene.outline, "Calcification": [(scene.x, scene.y)]}
    regions = [
        {
            "Area": 1.5,
            "IndexInImage": number,
            "Name": name,
            "NumberOfPoints": len(points),
            "Point_mm": ["(0.000000, 0.000000, 0.000000)"] * len(points),
            "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points],
        }
        for number, (name, points) in enumerate(outlines.items())
    ]
    images = [{"ImageIndex": 0, "NumberOfROIs": len(regions), "ROIs": regions}]
    path.write_bytes(plistlib.dumps({"Images": images}))


def test_inbreast_is_counted(inbreast):
    taken, _ = inbreast
    assert taken.counts("layout", "files", "accepted", "rejected") == ("inbreast", 5, 5, {})
    assert taken.counts("patients", "without_spacing") == (3, 0)
    assert taken.counts("vendors", "lateralities") == ({"Siemens": 5}, {"L": 3, "R": 2})
    assert taken.document["views"] == {"CC": 3, "ML": 1, "MLO": 1}
    assert taken.document["densities"] == {"D": 2, "B": 1, "unknown": 1, "A": 1}


def test_the_normal_breast_of_an_inbreast_patient_with_4a_is_kept_out_of_stage_1(inbreast):
    taken, _ = inbreast
    assert taken.stages == ((2, 1), (2, 2))
    assert taken.serves("20586934") == ["without_malignancy"]
    assert taken.document["left_out"] == {SUSPICIOUS: 1}


@pytest.mark.parametrize("image", ["20586908", "22678622"])
def test_outlines_of_inbreast_lie_on_the_lesion(inbreast, check_lesion, image):
    taken, scenes = inbreast
    check_lesion(taken, image, scenes[image].lesion)


def test_normal_images_of_inbreast_mark_nothing(inbreast, check_normal):
    for image in ("50994354", "50994408"):
        check_normal(inbreast[0], image)


CBIS_HEADER = (
    "patient_id,{},left or right breast,image view,abnormality id,abnormality type,{},{},"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
CBIS_HEADERS = {
    "mass": CBIS_HEADER.format("breast_density", "mass shape", "mass margins").split(","),
    "calc": CBIS_HEADER.format("breast density", "calc type", "calc distribution").split(","),
}
STUDY, SERIES = "08-29-2017-DDSM-NA-94942", "1.000000-full mammogram images-63992"


class Cbis:
    """CBIS-DDSM under construction."""

    def __init__(self, folder, dicom):
        self.folder, self.dicom = folder, dicom
        self.tables = {kind: [header] for kind, header in CBIS_HEADERS.items()}

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
    lesions = {}
    left, right = (drawn.scene(side, seed, lesion=True) for seed, side in enumerate("LR"))
    name = cbis.finding("P_00001", "LEFT", "CC", "MALIGNANT")
    cbis.image(name, left)
    cbis.outline(f"{name}_1", left, mask="1-2.dcm", crop="1-1.dcm")
    lesions[name] = left.lesion
    name = cbis.finding("P_00002", "RIGHT", "MLO", "MALIGNANT")
    cbis.image(name, right, syntax="explicit")
    cbis.outline(f"{name}_1", right)
    lesions[name] = right.lesion
    lesions |= mass_and_calc(cbis, drawn.scene)
    name = cbis.finding("P_00004", "RIGHT", "CC", "BENIGN_WITHOUT_CALLBACK")
    cbis.image(name, drawn.scene("R", 4))
    return take_in(cbis.write()), lesions


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
    return {names[0]: above.lesion | below.lesion}


def test_cbis_ddsm_is_counted(cbis):
    taken, _ = cbis
    assert taken.counts("layout", "accepted", "patients") == ("cbis-ddsm", 4, 4)
    assert taken.document["vendors"] == {"unknown": 4}
    assert taken.counts("views", "lateralities") == ({"CC": 2, "MLO": 2}, {"L": 2, "R": 2})
    assert taken.counts("densities", "without_spacing") == ({"B": 4}, 4)
    assert taken.stages == ((1, 1), (3, 3))


@pytest.mark.parametrize("number", [1, 2])
def test_masks_of_cbis_ddsm_lie_on_the_lesion_though_crops_swap_places(cbis, check_lesion, number):
    taken, lesions = cbis
    name = next(name for name in lesions if f"P_0000{number}" in name)
    check_lesion(taken, name, lesions[name])


def test_a_mass_and_a_calcification_of_one_cbis_ddsm_image_are_one_target(cbis, check_lesion):
    taken, lesions = cbis
    name = "Mass-Training_P_00003_LEFT_MLO"
    check_lesion(taken, name, lesions[name])


def test_the_benign_image_of_cbis_ddsm_marks_nothing(cbis, check_normal):
    check_normal(cbis[0], "Mass-Training_P_00004_RIGHT_CC")


VINDR_HEADER = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,"
    "breast_density,finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)


@pytest.fixture(scope="module")
def vindr(tmp_path_factory, drawn, take_in):
    """A patient with a box and one without, in the transfer syntaxes of their units."""
    folder = tmp_path_factory.mktemp("VinDr-Mammo")
    lines = [VINDR_HEADER]
    for seed, (image, side, view, birads, syntax) in enumerate(
        [
            ("4e3a578fe535ea4f5258d3f7f4419db8", "R", "CC", 4, "jpeg-lossless-sv1"),
            ("dac39351b0f3a8c670b7f8dc88029364", "L", "CC", 1, "jpeg-2000-lossless"),
            ("7d5fac1a2a5c6c1e5a9b0a3a1f0c4d11", "R", "MLO", 2, "jpeg-lossless"),
            ("1f2e3d4c5b6a79880f1e2d3c4b5a6978", "L", "MLO", 1, "jpeg-2000-lossless"),
        ]
    ):
        study = ("b8d273e8601f348d3664778dae0e7e0b", "8269f5971eaca3e5d3772d1796e6bd7a")[seed > 1]
        scene = drawn.scene(side, seed, lesion=birads > 2)
        x, y, radius = scene.x, scene.y, scene.radius
        box = f"{x - radius}.5,{y - radius}.25,{x + radius}.5,{y + radius}.75"
        found = f"\"['Mass', 'Suspicious Calcification']\",BI-RADS 4,{box}"
        found = found if scene.lesion.any() else "['No Finding'],,,,,"
        height, width = scene.grey.shape
        lines.append(
            f"{study},s{seed},{image},{side},{view},{height},{width},BI-RADS {birads},DENSITY C,"
            f"{found},training"
        )
        drawn.dicom(
            folder / "images" / study / f"{image}.dicom",
            scene.grey,
            syntax=syntax,
            inverted=seed == 3,
            PatientID=f"{seed:032x}",
            Manufacturer="SIEMENS" if seed < 2 else "IMS s.r.l.",
            PixelSpacing=["0.085", "0.085"],
        )
    (folder / "finding_annotations.csv").write_text("\n".join([*lines, ""]))
    return take_in(folder)


def test_vindr_mammo_is_counted(vindr):
    assert vindr.counts("layout", "files", "accepted", "rejected") == ("vindr-mammo", 4, 4, {})
    assert vindr.counts("patients", "without_spacing") == (2, 0)
    assert vindr.document["vendors"] == {"Siemens": 2, "IMS Giotto": 2}
    assert vindr.counts("views", "lateralities") == ({"CC": 2, "MLO": 2}, {"L": 2, "R": 2})
    assert vindr.document["densities"] == {"C": 4}


def test_a_malignant_image_of_vindr_mammo_is_left_out_for_it_has_boxes_only(vindr):
    assert vindr.stages == ((2, 1), (0, 0))
    assert vindr.document["left_out"] == {"malignant with boxes only": 1, SUSPICIOUS: 1}
    assert vindr.serves("4e3a578fe535ea4f5258d3f7f4419db8") == []


def test_compressed_images_of_vindr_mammo_mark_nothing(vindr, check_normal):
    assert len(vindr.entries) == 3
    for image in vindr.entries:
        check_normal(vindr, image)


@pytest.fixture(scope="module")
def bare(tmp_path_factory, drawn, take_in):
    """A hospital's export without a table, as a disc has it."""
    folder = tmp_path_factory.mktemp("export")
    usual = {"ImagerPixelSpacing": ["0.1", "0.1"], "Manufacturer": "GE MEDICAL SYSTEMS"}
    hologic = usual | {
        "Manufacturer": "HOLOGIC, Inc.",
        "Modality": "",
        "PositionerType": "MAMMOGRAPHIC",
    }
    for seed, (name, patient, elements) in enumerate(
        [
            ("A/IM000001", "anna", usual | {"ImageLaterality": "L", "ImageComments": "BI-RADS 2"}),
            ("A/IM000002", "anna", usual | {"Laterality": "R", "ImageComments": "BIRADS 1"}),
            ("B/L_CC.dcm", "berta", hologic | {"ImageComments": "BI-RADS: 5"}),
            ("B/R_CC.dcm", "berta", hologic),
        ]
    ):
        side = "LRLR"[seed]
        drawn.dicom(
            folder / name,
            drawn.scene(side, seed, lesion=seed == 2).grey,
            syntax="jpeg-lossless-sv1" if patient == "anna" else "jpeg-2000-lossless",
            inverted=patient == "berta",
            PatientID=patient,
            ViewPosition="CC" if patient == "anna" else "",
            **elements,
        )
    (folder / "README.TXT").write_text("The archive's viewer.")
    return take_in(folder)


def test_a_bare_folder_is_counted_by_what_its_files_say(bare):
    assert bare.counts("layout", "files", "accepted", "rejected") == ("dicom", 4, 4, {})
    assert bare.counts("patients", "views") == (2, {"CC": 4})
    assert bare.counts("lateralities", "without_spacing") == ({"L": 2, "R": 2}, 0)
    sources = {"file name": 2, "ImageLaterality": 1, "Laterality": 1}
    assert bare.document["laterality_from"] == sources
    assert bare.document["vendors"] == {"GE": 2, "Hologic": 2}
    assert bare.stages == ((2, 1), (0, 0))
    assert bare.document["left_out"] == {
        "malignant without mask": 1,
        "no pathology and no BI-RADS category": 1,
    }


def test_images_of_a_bare_folder_mark_nothing(bare, check_normal):
    assert list(bare.entries) == ["A/IM000001", "A/IM000002"]
    for name in bare.entries:
        check_normal(bare, name)

"""INbreast, VinDr-Mammo and a hospital's own DICOM folder: from the folder to the samples."""

import plistlib

import pytest

SUSPICIOUS = "patient has BI-RADS 3-6 or malignant row"


@pytest.fixture(scope="module")
def inbreast(tmp_path_factory, drawn, take_in):
    """Patients with 4a and 3, each with a normal other breast; one with 5, one healthy."""
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
            ("53580804", "3cdf2a3fb4a2bbd4", "R", "MLO", "3", "3"),
            ("53580858", "3cdf2a3fb4a2bbd4", "L", "CC", "3", "2"),
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
    assert taken.counts("layout", "files", "accepted", "rejected") == ("inbreast", 7, 7, {})
    assert taken.counts("patients", "without_spacing") == (4, 0)
    assert taken.counts("vendors", "lateralities") == ({"Siemens": 7}, {"L": 4, "R": 3})
    assert taken.document["views"] == {"CC": 4, "ML": 1, "MLO": 2}
    assert taken.document["densities"] == {"D": 2, "C": 2, "B": 1, "unknown": 1, "A": 1}


def test_the_normal_breasts_of_inbreast_patients_with_4a_or_3_are_kept_out_of_stage_1(inbreast):
    taken, _ = inbreast
    assert taken.stages == ((2, 1), (2, 2))
    assert taken.serves("20586934") == taken.serves("53580858") == ["without_malignancy"]
    assert taken.document["left_out"] == {SUSPICIOUS: 2, "BI-RADS 3 without pathology": 1}


@pytest.mark.parametrize("image", ["20586908", "22678622"])
def test_outlines_of_inbreast_lie_on_the_lesion(inbreast, check_lesion, image):
    taken, scenes = inbreast
    check_lesion(taken, image, scenes[image])


def test_normal_images_of_inbreast_mark_nothing(inbreast, check_normal):
    taken, scenes = inbreast
    for image in ("50994354", "50994408"):
        check_normal(taken, image, scenes[image])


VINDR_HEADER = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,"
    "breast_density,finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)


@pytest.fixture(scope="module")
def vindr(tmp_path_factory, drawn, take_in):
    """A patient with a box and one without, in the transfer syntaxes of their units."""
    folder = tmp_path_factory.mktemp("VinDr-Mammo")
    lines, scenes = [VINDR_HEADER], {}
    for seed, (image, side, view, birads, syntax) in enumerate(
        [
            ("4e3a578fe535ea4f5258d3f7f4419db8", "R", "CC", 4, "jpeg-lossless-sv1"),
            ("dac39351b0f3a8c670b7f8dc88029364", "L", "CC", 1, "jpeg-2000-lossless"),
            ("7d5fac1a2a5c6c1e5a9b0a3a1f0c4d11", "R", "MLO", 2, "jpeg-lossless"),
            ("1f2e3d4c5b6a79880f1e2d3c4b5a6978", "L", "MLO", 1, "jpeg-2000-lossless"),
        ]
    ):
        study = ("b8d273e8601f348d3664778dae0e7e0b", "8269f5971eaca3e5d3772d1796e6bd7a")[seed > 1]
        scene = scenes[image] = drawn.scene(side, seed, lesion=birads > 2)
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
    return take_in(folder), scenes


def test_vindr_mammo_is_counted(vindr):
    taken, _ = vindr
    assert taken.counts("layout", "files", "accepted", "rejected") == ("vindr-mammo", 4, 4, {})
    assert taken.counts("patients", "without_spacing") == (2, 0)
    assert taken.document["vendors"] == {"Siemens": 2, "IMS Giotto": 2}
    assert taken.counts("views", "lateralities") == ({"CC": 2, "MLO": 2}, {"L": 2, "R": 2})
    assert taken.document["densities"] == {"C": 4}


def test_a_malignant_image_of_vindr_mammo_is_left_out_for_it_has_boxes_only(vindr):
    taken, _ = vindr
    assert taken.stages == ((2, 1), (0, 0))
    assert taken.document["left_out"] == {"malignant with boxes only": 1, SUSPICIOUS: 1}
    assert taken.serves("4e3a578fe535ea4f5258d3f7f4419db8") == []


def test_compressed_images_of_vindr_mammo_mark_nothing(vindr, check_normal):
    taken, scenes = vindr
    assert len(taken.entries) == 3
    for image in taken.entries:
        check_normal(taken, image, scenes[image])


@pytest.fixture(scope="module")
def bare(tmp_path_factory, drawn, take_in):
    """A hospital's export without a table, as a disc has it."""
    folder = tmp_path_factory.mktemp("export")
    scenes = {}
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
        scene = scenes[name] = drawn.scene("LRLR"[seed], seed, lesion=seed == 2)
        drawn.dicom(
            folder / name,
            scene.grey,
            syntax="jpeg-lossless-sv1" if patient == "anna" else "jpeg-2000-lossless",
            inverted=patient == "berta",
            PatientID=patient,
            ViewPosition="CC" if patient == "anna" else "",
            **elements,
        )
    (folder / "README.TXT").write_text("The archive's viewer.")
    return take_in(folder), scenes


def test_a_bare_folder_is_counted_by_what_its_files_say(bare):
    taken, _ = bare
    assert taken.counts("layout", "files", "accepted", "rejected") == ("dicom", 4, 4, {})
    assert taken.counts("patients", "views") == (2, {"CC": 4})
    assert taken.counts("lateralities", "without_spacing") == ({"L": 2, "R": 2}, 0)
    sources = {"file name": 2, "ImageLaterality": 1, "Laterality": 1}
    assert taken.document["laterality_from"] == sources
    assert taken.document["vendors"] == {"GE": 2, "Hologic": 2}
    assert taken.stages == ((2, 1), (0, 0))
    assert taken.document["left_out"] == {
        "malignant without mask": 1,
        "no pathology and no BI-RADS category": 1,
    }


def test_images_of_a_bare_folder_mark_nothing(bare, check_normal):
    taken, scenes = bare
    assert list(taken.entries) == ["A/IM000001", "A/IM000002"]
    for name in taken.entries:
        check_normal(taken, name, scenes[name])

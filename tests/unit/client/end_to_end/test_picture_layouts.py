"""Folders of pictures, CDD-CESM, mini-MIAS and labels.csv: from the folder to the samples."""

import csv
import json

import numpy as np
import pytest

SUSPICIOUS = "patient has BI-RADS 3-6 or malignant row"


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def via_circle(scene):
    return {"name": "circle", "cx": scene.x, "cy": scene.y, "r": scene.radius}


def via_polygon(scene):
    x, y = zip(*scene.outline, strict=True)
    return {"name": "polygon", "all_points_x": x, "all_points_y": y}


def via_ellipse(scene):
    """The circle, turned, which changes nothing about it."""
    radii = {"rx": scene.radius, "ry": scene.radius, "theta": 0.7}
    return {"name": "ellipse", "cx": scene.x, "cy": scene.y, **radii}


CESM_HEADER = (
    "Image_name,Patient_ID,Side,Type,Age,Breast density (ACR),BIRADS,Findings,View,Tags,Machine,"
    "Pathology Classification/ Follow up"
).split(",")
REGION_HEADER = (
    "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
).split(",")


@pytest.fixture(scope="module")
def cesm(tmp_path_factory, drawn, take_in):
    """Low-energy images beside subtracted ones, which show the lesion elsewhere."""
    folder = tmp_path_factory.mktemp("CDD-CESM")
    rows, regions, scenes = [CESM_HEADER], [REGION_HEADER], {}
    for seed, (name, birads, pathology, via) in enumerate(
        [
            ("P1_L_DM_CC", "5", "Malignant", via_polygon),
            ("P1_R_DM_CC", "1", "Normal", None),
            ("P2_R_DM_MLO", "4$5", "Malignant", via_ellipse),
            ("P3_L_DM_MLO", "4", "Malignant", None),
            ("P4_R_DM_CC", "1", "Normal", via_circle),
            ("P5_L_DM_CC", "2", "Benign", via_circle),
        ]
    ):
        patient, side, _, view = name.split("_")
        scene = scenes[name] = drawn.scene(side, seed, lesion=pathology == "Malignant")
        subtracted = drawn.scene(side, seed, lesion=True, at=(0.3, 0.7))
        for kind, shown, words in (("DM", scene, "Low energy"), ("CM", subtracted, "Subtracted")):
            image = name.replace("DM", kind)
            drawn.picture(folder / f"{words} images of CDD-CESM" / f"{image}.jpg", shown.grey)
            cells = [image, patient[1:], side, kind, 52, "C", birads, "Mass", view, "$", 1]
            rows.append([*cells, pathology])
            if via:
                region = [f"{image}.jpg", 1000, "{}", 1, 0, json.dumps(via(shown)), "{}"]
                regions.append(region)
    write_rows(folder / "Radiology-manual-annotations.csv", rows)
    write_rows(folder / "Radiology_hand_drawn_segmentations_v2.csv", regions)
    return take_in(folder), scenes


def test_cdd_cesm_is_counted(cesm):
    taken, scenes = cesm
    assert taken.counts("layout", "files", "accepted", "rejected") == ("cdd-cesm", 6, 6, {})
    assert taken.counts("views", "lateralities") == ({"CC": 4, "MLO": 2}, {"L": 3, "R": 3})
    assert taken.counts("patients", "densities", "vendors") == (5, {"C": 6}, {"unknown": 6})
    assert taken.stages == ((2, 2), (2, 2))
    assert taken.document["left_out"] == {SUSPICIOUS: 1, "malignant without mask": 1}
    assert list(taken.items) == list(scenes)  # no subtracted image


@pytest.mark.parametrize("image", ["P1_L_DM_CC", "P2_R_DM_MLO"])
def test_regions_of_cdd_cesm_lie_on_the_lesion_of_the_low_energy_image(cesm, check_lesion, image):
    taken, scenes = cesm
    check_lesion(taken, image, scenes[image])


def test_regions_of_cdd_cesm_on_what_is_not_malignant_mark_nothing(cesm, check_normal):
    taken, scenes = cesm
    for image in ("P1_R_DM_CC", "P4_R_DM_CC", "P5_L_DM_CC"):
        check_normal(taken, image, scenes[image])


MIAS_PROSE = "This file lists the films in the MIAS database.\r\n\r\n"
MIAS_HEIGHT = 1024


@pytest.fixture(scope="module")
def mias(tmp_path_factory, drawn, take_in):
    """Four pairs: a cancer right, a cancer left, both healthy, a cancer without a place."""
    folder = tmp_path_factory.mktemp("mini-MIAS")
    lines, scenes = [], {}
    found = ["SPIC M", "NORM", "NORM", "CIRC M", "NORM", "NORM", "CALC M *NOTE 3*", "NORM"]
    for number, finding in enumerate(found, start=1):
        side, has_place = "LR"[number % 2], finding in ("SPIC M", "CIRC M")
        scene = drawn.scene(side, number, lesion=has_place, rows=MIAS_HEIGHT, columns=MIAS_HEIGHT)
        scenes[f"mdb{number:03}"] = scene
        place = f" {scene.x} {MIAS_HEIGHT - 1 - scene.y} {scene.radius}" if has_place else ""
        lines.append(f"mdb{number:03} {'GFD'[number % 3]} {finding}{place}")
        drawn.picture(folder / "all-mias" / f"mdb{number:03}.pgm", scene.grey)
    (folder / "Info.txt").write_bytes((MIAS_PROSE + "\r\n".join([*lines, ""])).encode())
    return take_in(folder), scenes


def test_mini_mias_is_counted_by_pairs(mias):
    taken, _ = mias
    assert taken.counts("layout", "files", "accepted", "rejected") == ("mini-mias", 8, 8, {})
    assert taken.counts("patients", "without_spacing", "views") == (4, 0, {"MLO": 8})
    assert taken.document["lateralities"] == {"R": 4, "L": 4}
    assert taken.document["densities"] == {
        "fatty": 3,
        "dense-glandular": 3,
        "fatty-glandular": 2,
    }
    assert taken.stages == ((2, 1), (2, 2))
    assert taken.document["left_out"] == {SUSPICIOUS: 3, "malignant without mask": 1}
    assert taken.serves("mdb002") == taken.serves("mdb003") == ["without_malignancy"]


@pytest.mark.parametrize("image", ["mdb001", "mdb004"])
def test_circles_of_mini_mias_which_count_from_the_bottom_lie_on_the_lesion(
    mias, check_lesion, image
):
    taken, scenes = mias
    check_lesion(taken, image, scenes[image])


def test_normal_images_of_mini_mias_mark_nothing(mias, check_normal):
    taken, scenes = mias
    for image in ("mdb002", "mdb005", "mdb006"):
        check_normal(taken, image, scenes[image])


@pytest.fixture(scope="module")
def labels(tmp_path_factory, drawn, take_in):
    """A hospital's own table: DICOM and pictures, masks and outlines side by side."""
    folder = tmp_path_factory.mktemp("hospital")
    left, right, film, normal, other, lost = (
        drawn.scene(side, seed, lesion=seed < 3) for seed, side in enumerate("LRLRLR")
    )
    unit = {"Manufacturer": "FUJIFILM Corporation", "ImagerPixelSpacing": ["0.05", "0.05"]}
    drawn.dicom(folder / "dicom/1.dcm", left.grey, syntax="jpeg-ls", inverted=True, **unit)
    drawn.picture(folder / "masks/1.png", left.lesion)
    drawn.picture(folder / "images/2.png", right.grey, np.uint16)
    via = {"filename": "2.png", "regions": [{"shape_attributes": via_polygon(right)}]}
    (folder / "masks/2.json").write_text(json.dumps({"2.png1000": via}))
    drawn.picture(folder / "images/3.tif", film.grey, np.uint16)
    half = film.lesion.copy()
    half[: film.y] = False
    drawn.picture(folder / "masks/3a.png", half)
    drawn.picture(folder / "masks/3b.tif", film.lesion & ~half)
    drawn.dicom(folder / "dicom/4.dcm", normal.grey, inverted=True, ViewPosition="CC", **unit)
    drawn.dicom(folder / "dicom/5.dcm", other.grey, syntax="deflated", **unit)
    drawn.dicom(folder / "dicom/6.dcm", lost.grey, ImageLaterality="R", **unit)
    header = "image,mask,patient_id,laterality,view,pathology,birads,density,spacing_mm,vendor"
    lines = [
        "dicom/1.dcm,masks/1.png,p1,L,CC,malignant,5,b,,",
        "images/2.png,masks/2.json,p2,R,MLO,malignant,4c,2,0.07,Sectra",
        "images/3.tif,masks/3a.png|masks/3b.tif,p3,L,MLO,malignant,,,,Lumisys",
        "dicom/4.dcm,,p4,R,,normal,1,d,,",
        "dicom/5.dcm,,p4,left,MLO,benign,2,d,,",
        "dicom/6.dcm,masks/6.png,p6,R,MLO,malignant,6,a,,",
    ]
    (folder / "labels.csv").write_text("\n".join([header, *lines, ""]))
    scenes = {"dicom/1.dcm": left, "images/2.png": right, "images/3.tif": film}
    scenes |= {"dicom/4.dcm": normal, "dicom/5.dcm": other}
    return take_in(folder), scenes


def test_a_folder_with_a_table_is_counted(labels):
    taken, _ = labels
    assert taken.counts("layout", "files", "accepted") == ("labels", 6, 5)
    assert taken.counts("patients", "rejected") == (4, {"missing mask": 1})
    assert taken.document["vendors"] == {"Fujifilm": 3, "Lumisys": 1, "Sectra": 1}
    assert taken.counts("views", "lateralities") == ({"MLO": 3, "CC": 2}, {"L": 3, "R": 2})
    assert taken.document["densities"] == {"B": 2, "D": 2, "unknown": 1}
    assert taken.document["without_spacing"] == 1
    assert taken.stages == ((2, 1), (3, 3))


@pytest.mark.parametrize("image", ["dicom/1.dcm", "images/2.png", "images/3.tif"])
def test_masks_and_outlines_of_a_table_lie_on_the_lesion(labels, check_lesion, image):
    taken, scenes = labels
    check_lesion(taken, image, scenes[image])


def test_normal_images_of_a_table_mark_nothing(labels, check_normal):
    taken, scenes = labels
    for image in ("dicom/4.dcm", "dicom/5.dcm"):
        check_normal(taken, image, scenes[image])

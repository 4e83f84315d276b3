import plistlib

import pytest

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason

SQUARE = ["(0.500000, 0.500000)", "(3.5, 0.5)", "(3.5, 2.5)", "(0.5, 2.5)"]


def write(path, *regions, **images):
    """Write a file as OsiriX does, with keys that nobody reads."""
    rois = [
        {
            "Name": name,
            "NumberOfPoints": len(points),
            "Point_px": points,
            "Point_mm": ["(0.000000, 0.000000, 0.000000)"] * len(points),
            "Area": 0.25,
            "Type": 15,
        }
        for name, points in regions
    ]
    image = {"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": rois} | images
    path.write_bytes(plistlib.dumps({"Images": [image]}))
    return path


def test_masses_and_calcifications_of_one_file_are_united(tmp_path, marked):
    path = write(
        tmp_path / "1.xml",
        ("Mass", SQUARE),
        ("Calcification", ["(5.000000, 0.000000)"]),
        ("Espiculated Region", ["(4, 3)", "(6.2, 3.4)"]),
    )
    assert marked(path, 5, 7) == [".....#.", ".###...", ".###...", "....#.#", "......."]


def test_the_written_doctype_of_apple_is_accepted(tmp_path):
    path = write(tmp_path / "1.xml", ("Mass", SQUARE))
    assert b"<!DOCTYPE plist PUBLIC" in path.read_bytes()
    assert read_annotations([Annotation(path)], 5, 7).points == 0


def test_single_points_are_counted(tmp_path):
    path = write(tmp_path / "1.xml", ("Calcification", ["(1, 1)"]), ("Cluster", ["(2, 2)"]))
    found = read_annotations([Annotation(path)], 5, 7)
    assert (found.mask.sum(), found.points, found.boxes, found.resampled) == (2, 2, 0, 0)


def test_a_file_without_regions_marks_nothing(tmp_path, marked):
    with pytest.raises(FileRejected) as refusal:
        marked(write(tmp_path / "1.xml"), 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK


ENTITY = b"""<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>
<plist version="1.0"><dict><key>Images</key><string>&b;</string></dict></plist>"""


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (ENTITY, "not an Apple property list"),
        (b"<html><body>Secret^Name</body></html>", "without Images"),
        (b"", "not an Apple property list"),
        (plistlib.dumps({"Images": []}, fmt=plistlib.FMT_BINARY), "not an Apple property list"),
        (plistlib.dumps({"Images": []}), r"without Images\[0\].ROIs"),
        (plistlib.dumps([1]), r"without Images\[0\].ROIs"),
        (plistlib.dumps({"Images": [{"ROIs": [{"Name": "Mass"}]}]}), "KeyError"),
        (plistlib.dumps({"Images": [{"ROIs": [{"Point_px": ["1, 2"]}]}]}), r"not written \(x, y\)"),
        (plistlib.dumps({"Images": [{"ROIs": [{"Point_px": ["(nan, 2)"]}]}]}), "not written"),
        (plistlib.dumps({"Images": [{"ROIs": [{"Point_px": ["(1.2.3, 2)"]}]}]}), "ValueError"),
    ],
)
def test_what_is_no_such_list_is_refused(tmp_path, marked, data, detail):
    (tmp_path / "1.xml").write_bytes(data)
    with pytest.raises(FileRejected, match=detail) as refusal:
        marked(tmp_path / "1.xml", 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK
    assert "Secret" not in str(refusal.value)

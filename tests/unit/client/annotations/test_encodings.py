"""Annotation files as editors and spreadsheets save them again: marks, UTF-16, other separators."""

import codecs
import csv
import io
import json
import plistlib

import pytest

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason

X, Y = [1, 5, 5, 1], [1, 1, 4, 4]
SHAPE = {"name": "polygon", "all_points_x": X, "all_points_y": Y}
MARKED = 4 * 3

ENCODINGS = {
    "plain": lambda text: text.encode(),
    "a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "two marks": lambda text: 2 * codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 of a big-endian machine": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
}


def via_csv(delimiter=",", first=""):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    columns = ("filename", "file_size", "region_shape_attributes", "region_attributes")
    writer.writerows([columns, ("é.png", 1, json.dumps(SHAPE), '{"class": "mass"}')])
    return first + file.getvalue()


def via_json():
    region = {"shape_attributes": SHAPE, "region_attributes": {"class": "mass"}}
    return json.dumps({"k": {"filename": "é.png", "regions": [region]}}, ensure_ascii=False)


def coco_json():
    flat = [0.5 + n for pair in zip(X, Y, strict=True) for n in pair]
    annotation = {"image_id": 1, "category_id": 1, "segmentation": [flat]}
    names = [{"id": 1, "name": "mass"}]
    images = [{"id": 1, "file_name": "é.png"}]
    document = {"images": images, "annotations": [annotation], "categories": names}
    return json.dumps(document, ensure_ascii=False)


def inbreast_xml():
    region = {"Name": "Mass é", "Point_px": [f"({x}, {y})" for x, y in zip(X, Y, strict=True)]}
    return plistlib.dumps({"Images": [{"ROIs": [region]}]}).decode()


FILES = {
    "via.csv": via_csv(),
    "semicolons.csv": via_csv(";"),
    "tabs.csv": via_csv("\t"),
    "declared.csv": via_csv(";", "sep=;\r\n"),
    "via.json": via_json(),
    "coco.json": coco_json(),
    "inbreast.xml": inbreast_xml(),
}


@pytest.mark.parametrize("suffix", ["of its own", "none"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", FILES)
def test_an_annotation_is_read_however_its_text_was_saved(tmp_path, name, encoding, suffix):
    path = tmp_path / (name if suffix == "of its own" else name.replace(".", "-"))
    path.write_bytes(ENCODINGS[encoding](FILES[name]))

    marked = read_annotations([Annotation(path, "é.png")], 6, 8)

    assert marked.mask.sum() == MARKED
    assert marked.mask[1:4, 1:5].all()


def test_a_json_file_in_utf_16_without_a_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(via_json().encode("utf-16-le"))
    assert read_annotations([Annotation(tmp_path / "a.json", "é.png")], 6, 8).mask.sum() == MARKED


@pytest.mark.parametrize("name", ["via.json", "coco.json"])
def test_another_encoding_is_refused_by_a_line_that_says_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name].encode("cp1252"))
    with pytest.raises(FileRejected, match="save the file as UTF-8") as refusal:
        read_annotations([Annotation(tmp_path / name, "é.png")], 6, 8)
    assert refusal.value.reason is Reason.UNREADABLE_MASK

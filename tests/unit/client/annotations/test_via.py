import csv
import json

import numpy as np
import pytest

from mamfed_client.annotations import read_annotations, via
from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.imaging.rejections import FileRejected, Reason

SQUARE = {
    "name": "polygon",
    "all_points_x": [0.5, 3.5, 3.5, 0.5],
    "all_points_y": [0.5, 0.5, 2.5, 2.5],
}
CIRCLE = {"name": "circle", "cx": 5, "cy": 1, "r": 1}
POINT = {"name": "point", "cx": 6, "cy": 4}
BOX = {"name": "rect", "x": 1, "y": 1, "width": 2, "height": 3}
HEADER = (
    "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
).split(",")
SQUARE_ROWS = [".......", ".###...", ".###...", ".......", "......."]


def image(name, *shapes, numbered=False):
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    if numbered:
        regions = {str(number): region for number, region in enumerate(regions)}
    return {"filename": name, "size": 12345, "regions": regions, "file_attributes": {}}


def write_json(path, *images, project=True):
    metadata = {f"{entry['filename']}12345": entry for entry in images}
    path.write_text(json.dumps({"_via_img_metadata": metadata} if project else metadata))
    return path


def write_csv(path, *rows, header=HEADER):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, shape in rows:
            text = shape if isinstance(shape, str) else json.dumps(shape)
            writer.writerow([name, 1, "{}", 1, 0, text, "{}"])
    return path


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("numbered", [True, False])
def test_a_project_and_both_versions_of_export_are_read(tmp_path, marked, project, numbered):
    entries = image("0.png", POINT), image("1.png", SQUARE, CIRCLE, POINT, numbered=numbered)
    path = write_json(tmp_path / "via.json", *entries, project=project)
    assert marked(path, 5, 7) == [".....#.", ".######", ".###.#.", ".......", "......#"]


@pytest.mark.parametrize("listed", ["a.png", "folder/a.png", "C:\\here\\A.PNG", "A.jpg"])
def test_folders_capitals_and_at_last_suffixes_do_not_count(tmp_path, marked, listed):
    path = write_json(tmp_path / "via.json", image("aa.png", POINT), image(listed, SQUARE))
    assert marked(path, 5, 7, image_name="a.png") == SQUARE_ROWS


def test_an_equal_name_goes_before_one_of_another_suffix(tmp_path, marked):
    path = write_json(tmp_path / "via.json", image("1.jpg", POINT), image("1.png", SQUARE))
    assert marked(path, 5, 7) == SQUARE_ROWS


def test_two_entries_that_fit_are_refused(tmp_path, marked):
    path = write_json(tmp_path / "via.json", image("a/1.png", POINT), image("b/1.png", SQUARE))
    with pytest.raises(FileRejected, match="2 entries match the image"):
        marked(path, 5, 7)


def test_an_image_that_is_not_listed_has_an_empty_mask(tmp_path, marked):
    path = write_json(tmp_path / "via.json", image("2.png", SQUARE))
    with pytest.raises(FileRejected, match="does not list the image") as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_the_only_image_of_a_file_needs_no_name(tmp_path, marked):
    path = write_json(tmp_path / "via.json", image("2.png", SQUARE))
    assert marked(path, 5, 7, image_name="") == SQUARE_ROWS


def test_an_ellipse_turns_by_theta_from_x_towards_y(tmp_path):
    ellipse = {"name": "ellipse", "cx": 30, "cy": 25, "rx": 20, "ry": 5, "theta": 0.6}
    path = write_json(tmp_path / "via.json", image("1.png", ellipse))
    y, x = np.mgrid[:51, :61] - np.array([25, 30])[:, None, None]
    turned = (x + 1j * y) * np.exp(-0.6j)
    expected = (turned.real / 20) ** 2 + (turned.imag / 5) ** 2 <= 1
    assert (read_annotations([Annotation(path, "1.png")], 51, 61).mask == expected).all()


def test_an_ellipse_of_via_1_has_no_theta():
    shape = via.read_json(
        {"k": image("1.png", {"name": "ellipse", "cx": 3, "cy": 4, "rx": 2, "ry": 1})}, "1.png"
    ).shapes[0]
    assert shape == Shape("ellipse", ((3, 4),), (2, 1), 0)


def test_a_polyline_that_nearly_closes_is_filled(tmp_path, marked):
    line = {"name": "polyline", "all_points_x": [0.5, 3.5, 3.5, 0.5, 0.5]}
    line["all_points_y"] = [0.5, 0.5, 2.5, 2.5, 1.0]
    assert marked(write_json(tmp_path / "v.json", image("1.png", line)), 5, 7) == SQUARE_ROWS


def test_rectangles_are_boxes_and_no_mask(tmp_path, marked):
    path = write_json(tmp_path / "via.json", image("1.png", BOX, BOX))
    with pytest.raises(FileRejected, match="2 boxes and no outline") as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK
    (box, _) = via.read_json(json.loads(path.read_text()), "1.png").shapes
    assert box == Shape("box", ((1, 1), (3, 4)))


@pytest.mark.parametrize("name_column", ["#filename", "filename"])
def test_a_table_is_read(tmp_path, marked, name_column):
    rows = ("0.png", POINT), ("1.png", SQUARE), ("1.png", POINT), ("2.png", "broken")
    path = write_csv(tmp_path / "via.csv", *rows, header=[name_column, *HEADER[1:]])
    assert marked(path, 5, 7) == [*SQUARE_ROWS[:4], "......#"]


@pytest.mark.parametrize(
    "shape",
    ["not json", '{"name": "spline"}', '{"name": "point", "cx": 1}', '{"name": "point"', "[1]"],
)
def test_a_bad_row_of_the_image_itself_is_refused(tmp_path, marked, shape):
    path = write_csv(tmp_path / "via.csv", ("1.png", SQUARE), ("1.png", shape))
    with pytest.raises(FileRejected) as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_a_whole_table_is_read_at_once_and_bad_rows_are_named(tmp_path):
    rows = ("1.png", SQUARE), ("2.png", {}), ("1.png", POINT), ("3.png", "{"), ("3.png", "[]1")
    shapes, bad = via.table_shapes(write_csv(tmp_path / "via.csv", *rows))
    polygon, point = shapes.pop("1.png")
    assert polygon.points == ((0.5, 0.5), (3.5, 0.5), (3.5, 2.5), (0.5, 2.5))
    assert point == Shape("point", ((6, 4),))
    assert shapes == {"2.png": ()}
    assert bad == {"3.png"}


def test_an_outline_of_more_text_than_the_csv_module_allows_at_first_is_read(tmp_path):
    turns = np.linspace(0, 2 * np.pi, 9000)
    shape = {"name": "polygon", "all_points_x": list(9 + 8 * np.cos(turns))}
    shape["all_points_y"] = list(9 + 8 * np.sin(turns))
    path = write_csv(tmp_path / "via.csv", ("1.png", shape))
    assert path.stat().st_size > csv.field_size_limit()
    assert len(via.table_shapes(path).shapes["1.png"][0].points) == 9000


def test_a_table_with_a_byte_that_is_not_utf_8_is_read(tmp_path):
    path = write_csv(tmp_path / "via.csv", ("1.png", POINT), ("caf_.png", POINT))
    path.write_bytes(path.read_bytes().replace(b"caf_", b"caf\xe9"))
    assert via.table_shapes(path).shapes["1.png"] == (Shape("point", ((6, 4),)),)


def test_a_table_without_vias_columns_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,shape\n1.png,{}\n")
    with pytest.raises(FileRejected, match="VIA's columns"):
        via.table_shapes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "3",
        '{"a": 1}',
        '{"a": {"filename": "1.png", "regions": [{}]}}',
        '{"a": {"filename": 1, "regions": []}}',
        '{"_via_img_metadata": {}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": {"filename": "1.png", "regions": [{"shape_attributes": '
        '{"name": "point", "cx": 1e999, "cy": 2}}]}}',
        '{"a": {"filename": "1.png", "regions": [{"shape_attributes": '
        '{"name": "point", "cx": NaN, "cy": 2}}]}}',
        '{"a": {"filename": "1.png", "regions": [{"shape_attributes": '
        '{"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}}]}}',
        '{"a": {"filename": "1.png", "regions": [{"shape_attributes": '
        f'{{"name": "point", "cx": 1{"0" * 400}, "cy": 2}}}}]}}}}',
    ],
    ids=range(15),
)
def test_json_that_is_not_understood_is_refused(tmp_path, marked, text):
    (tmp_path / "1.json").write_text(text)
    with pytest.raises(FileRejected) as refusal:
        marked(tmp_path / "1.json", 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK

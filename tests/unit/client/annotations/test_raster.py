import math

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from mamfed_client.annotations.raster import draw, fit, scale
from mamfed_client.annotations.shapes import Shape
from mamfed_client.imaging.rejections import FileRejected, Reason


def inside(points, rows, columns):
    """Pixels whose centre matplotlib finds in a polygon."""
    y, x = np.mgrid[:rows, :columns]
    return Outline(points).contains_points(np.c_[x.ravel(), y.ravel()]).reshape(rows, columns)


def star(rng, corners, centre, radius):
    """A polygon with sharp corners in and out, at odd places between the pixels."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = radius * rng.uniform(0.3, 1, corners)
    return np.c_[centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)]


@pytest.mark.parametrize("seed", range(30))
def test_a_polygon_marks_the_pixels_whose_centre_matplotlib_finds_inside(seed):
    points = star(np.random.default_rng(seed), 5 + seed, (40.3, 31.7), 3 + 2 * seed)
    mask = draw([Shape("polygon", tuple(map(tuple, points)))], 61, 83)
    assert mask.tolist() == inside(points, 61, 83).tolist()
    assert mask.any()


def test_a_polygon_and_its_reverse_mark_the_same_pixels():
    points = tuple(map(tuple, star(np.random.default_rng(5), 9, (20, 20), 15)))
    forth, back = (draw([Shape("polygon", p)], 41, 41) for p in (points, points[::-1]))
    assert (forth == back).all()


def test_a_square_between_pixel_centres_marks_four_by_three():
    corners = ((1.5, 0.5), (5.5, 0.5), (5.5, 3.5), (1.5, 3.5))
    mask = draw([Shape("polygon", corners)], 5, 7)
    assert np.argwhere(mask).tolist() == [[y, x] for y in (1, 2, 3) for x in (2, 3, 4, 5)]


def test_what_an_outline_winds_around_twice_stays_marked():
    loop = ((0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5))
    inner = ((2.5, 2.5), (6.5, 2.5), (6.5, 6.5), (2.5, 6.5))
    mask = draw([Shape("polygon", (*loop, loop[0], *inner, inner[0]))], 10, 10)
    assert mask.sum() == 64


@pytest.mark.parametrize(
    ("corners", "pixels"),
    [
        (((3.2, 2.2), (3.4, 2.2), (3.3, 2.4)), [[2, 3]]),
        (((1.0, 1.4), (3.0, 1.4), (2.0, 1.45)), [[1, 1], [1, 2], [1, 3]]),
        (((1, 1), (4, 4)), [[1, 1], [2, 2], [3, 3], [4, 4]]),
    ],
)
def test_an_outline_too_thin_for_any_centre_marks_the_pixels_on_its_edge(corners, pixels):
    assert np.argwhere(draw([Shape("polygon", corners)], 6, 6)).tolist() == pixels


@pytest.mark.parametrize("far", [40_000, 3e9, 1.7e308])
def test_a_polygon_far_past_every_edge_covers_the_image(far):
    corners = ((-far, 2), (3, -far), (far, 1), (4, far))
    assert draw([Shape("polygon", corners)], 7, 9).all()


def test_a_polygon_is_cut_off_at_the_edges():
    points = ((-4.3, 3.1), (5.2, -6.4), (30.5, 8.3), (9.1, 40.2))
    assert (draw([Shape("polygon", points)], 21, 19) == inside(points, 21, 19)).all()


@pytest.mark.parametrize("kind", ["polygon", "polyline", "point"])
def test_what_lies_outside_marks_nothing(kind):
    assert not draw([Shape(kind, ((50, 50), (53, 51), (51, 54)))], 20, 20).any()


@pytest.mark.parametrize("angle", [0, 0.4, math.pi / 2, -2.5])
@pytest.mark.parametrize("radii", [(17.3, 6.1), (5.5, 21.2)])
@pytest.mark.parametrize("centre", [(30.2, 24.9), (2, 47)])
def test_an_ellipse_marks_the_centres_within_a_polygon_of_many_corners(centre, radii, angle):
    turns = np.linspace(0, 2 * np.pi, 5000)
    along, across = radii[0] * np.cos(turns), radii[1] * np.sin(turns)
    x = centre[0] + along * np.cos(angle) - across * np.sin(angle)
    y = centre[1] + along * np.sin(angle) + across * np.cos(angle)
    mask = draw([Shape("ellipse", (centre,), radii, angle)], 51, 63)
    assert (mask == inside(np.c_[x, y], 51, 63)).all()


def test_an_ellipse_turns_from_x_towards_y():
    mask = draw([Shape("ellipse", ((10, 10),), (9, 2), math.pi / 4)], 21, 21)
    assert mask[15, 15]
    assert not mask[5, 15]


def test_a_circle_marks_its_rim_on_all_four_sides(disk):
    mask = draw([Shape("circle", ((9, 8),), (5, 5))], 17, 19)
    assert (mask == disk(17, 19, 9, 8, 5)).all()
    assert mask[8, 4]
    assert mask[8, 14]
    assert mask[3, 9]
    assert mask[13, 9]


@pytest.mark.parametrize("radius", [0, 0.2])
def test_a_circle_too_small_for_any_centre_marks_the_pixel_it_lies_in(radius):
    mask = draw([Shape("circle", ((3.4, 1.6),), (radius, radius))], 5, 5)
    assert np.argwhere(mask).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("place", "pixel"), [((0, 0), [[0, 0]]), ((2.4, 1.5), [[2, 2]]), ((4.49, 4.4), [[4, 4]])]
)
def test_a_point_marks_the_pixel_it_lies_in(place, pixel):
    assert np.argwhere(draw([Shape("point", (place,))], 5, 5)).tolist() == pixel


def test_an_open_line_is_one_pixel_wide():
    mask = draw([Shape("polyline", ((-2, 1), (3.2, 1.2), (3.2, 9)))], 5, 6)
    expected = [[1, 0], [1, 1], [1, 2], [1, 3], [2, 3], [3, 3], [4, 3]]
    assert np.argwhere(mask).tolist() == expected


def test_a_line_that_nearly_comes_back_is_filled():
    turns = np.linspace(0.2, 2 * np.pi - 0.2, 30)
    points = tuple(zip(20 + 12 * np.cos(turns), 20 + 12 * np.sin(turns), strict=True))
    assert (draw([Shape("polyline", points)], 41, 41) == inside(points, 41, 41)).all()
    half = draw([Shape("polyline", points[:15])], 41, 41)
    assert not half[25, 20]
    assert half.any()


def test_a_box_is_never_drawn():
    box = Shape("box", ((1, 1), (4, 4)))
    dot = Shape("point", ((0, 0),))
    assert draw([box, dot], 6, 6).sum() == 1


@pytest.mark.parametrize(
    "shape",
    [
        Shape("polygon", ()),
        Shape("polygon", ((0, 0), (math.nan, 1), (2, 2))),
        Shape("box", ((0, 0), (math.inf, 1))),
        Shape("circle", ((1, 1),), (math.inf, math.inf)),
        Shape("circle", ((1, 1),), ()),
        Shape("ellipse", ((1, 1),), (3, -1)),
        Shape("ellipse", ((1, 1),), (3, 1), math.nan),
        Shape("heart", ((1, 1),)),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(shape):
    with pytest.raises(FileRejected) as refusal:
        draw([shape], 5, 5)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_an_outline_with_more_crossings_than_fit_in_memory_is_refused():
    zigzag = tuple((i % 7, 5000 * (i % 2)) for i in range(9001))
    with pytest.raises(FileRejected, match="crosses more rows"):
        draw([Shape("polygon", zigzag)], 5000, 8)


def test_a_mask_of_double_size_keeps_where_half_is_marked():
    mask = np.zeros((4, 6), bool)
    mask[:2, :2] = True
    mask[0, 4] = mask[1, 5] = True
    assert fit(mask, 2, 3).tolist() == [[True, False, True], [False, False, False]]


def test_exactly_half_is_enough():
    mask = np.zeros((4, 4), bool)
    mask[:3] = True
    assert fit(mask, 2, 2).all()


def test_a_mask_of_half_size_doubles_each_pixel():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = mask[0, 0] = True
    assert (fit(mask, 6, 8) == mask.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_a_mask_of_the_images_size_stays_as_it_is():
    mask = np.eye(5, dtype=bool)
    assert (fit(mask, 5, 5) == mask).all()


def test_no_tiny_finding_vanishes_when_a_mask_shrinks():
    mask = np.zeros((1000, 800), bool)
    mask[300:500, 200:400] = True
    mask[700, 703] = mask[901, 10] = True
    fitted = fit(mask, 100, 80)
    expected = np.zeros((100, 80), bool)
    expected[30:50, 20:40] = True
    expected[70, 70] = expected[90, 1] = True
    assert (fitted == expected).all()


def test_the_known_mask_of_cbis_ddsm_fits_its_image():
    """4386 x 1789 against 5041 x 2056: 2.4516 and 2.4518, the same aspect."""
    mask = np.zeros((438, 179), bool)
    mask[100:200, 50:100] = True
    assert fit(mask, 504, 206)[120:225, 60:112].all()


@pytest.mark.parametrize(("rows", "columns"), [(500, 506), (506, 500), (50, 40)])
def test_a_mask_of_another_aspect_is_refused_with_both_sizes(rows, columns):
    with pytest.raises(FileRejected, match=f"mask 100 x 100, image {columns} x {rows}") as refusal:
        fit(np.ones((100, 100), bool), rows, columns)
    assert refusal.value.reason is Reason.MASK_SIZE


def test_less_than_one_percent_of_aspect_is_forgiven():
    assert fit(np.ones((300, 300), bool), 200, 201).shape == (200, 201)


def test_stretching_keeps_the_images_corner_in_place():
    corner = scale(Shape("point", ((-0.5, -0.5),)), 3, 2)
    assert corner.points == ((-0.5, -0.5),)
    circle = scale(Shape("circle", ((4, 4),), (2, 2)), 2, 2)
    assert circle.points == ((8.5, 8.5),)
    assert circle.radii == (4, 4)


def test_a_line_from_and_to_the_end_of_the_number_range_crosses_the_image():
    far = 1.7e308
    assert (draw([Shape("polyline", ((-far, -far), (far, far)))], 6, 6) == np.eye(6)).all()

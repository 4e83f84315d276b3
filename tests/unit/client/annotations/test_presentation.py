import numpy as np
import pytest
from pydicom.uid import (
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MammographyCADSRStorage,
)

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.rejections import FileRejected, Reason

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3, 1, 1]
SQUARE_ROWS = [".......", ".###...", ".###...", ".......", "......."]
UIDS = "1.2.3", "1.2.4"


@pytest.fixture
def graphic(item):
    def build(kind, data, **elements):
        return item(
            **{"GraphicAnnotationUnits": "PIXEL", "GraphicDimensions": 2}
            | {"NumberOfGraphicPoints": len(data) // 2, "GraphicData": data, "GraphicType": kind}
            | elements
        )

    return build


@pytest.fixture
def write_state(write_dicom, item):
    """A presentation state; each annotation is the UIDs of its images and its graphics."""

    def write(*annotations, shown=()):
        def images(uids):
            return [item(ReferencedSOPInstanceUID=uid) for uid in uids]

        groups = [
            item(ReferencedImageSequence=images(uids), GraphicObjectSequence=graphics)
            for uids, graphics in annotations
        ]
        series = [item(ReferencedImageSequence=images(shown))]
        return write_dicom(
            GrayscaleSoftcopyPresentationStateStorage,
            GraphicAnnotationSequence=groups,
            ReferencedSeriesSequence=series,
        )

    return write


@pytest.fixture
def write_report(write_dicom, item):
    """A report whose regions lie in a container; each is its image's UID and its elements."""

    def write(*regions, sop_class=ComprehensiveSRStorage, by_reference=False):
        def image(uid):
            return item(
                ValueType="IMAGE",
                RelationshipType="SELECTED FROM",
                ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=uid)],
            )

        def source(number, uid):
            if by_reference:
                return item(ReferencedContentItemIdentifier=[1, 1, number])
            return image(uid)

        library = [image(uid) for uid, _ in regions] if by_reference else []
        content = [
            item(ValueType="SCOORD", ContentSequence=[source(i + 1, uid)], **elements)
            for i, (uid, elements) in enumerate(regions)
        ]
        container = item(ValueType="CONTAINER", ContentSequence=[*library, *content])
        return write_dicom(sop_class, ValueType="CONTAINER", ContentSequence=[container])

    return write


def region(kind, data, **elements):
    return {"GraphicType": kind, "GraphicData": data} | elements


@pytest.mark.parametrize("kind", ["POLYLINE", "INTERPOLATED"])
def test_closed_lines_of_a_presentation_state_are_filled(write_state, graphic, marked, kind):
    assert marked(write_state(([], [graphic(kind, SQUARE)])), 5, 7) == SQUARE_ROWS


def test_an_open_line_is_filled_only_where_it_says_so(write_state, graphic, marked):
    filled = graphic("POLYLINE", SQUARE[:-2], GraphicFilled="Y")
    assert marked(write_state(([], [filled])), 5, 7) == SQUARE_ROWS
    ruler = graphic("POLYLINE", [0.5, 4.5, 6.5, 4.5], GraphicFilled="N")
    assert marked(write_state(([], [ruler, filled])), 5, 7) == SQUARE_ROWS
    with pytest.raises(FileRejected) as refusal:
        marked(write_state(([], [ruler])), 5, 7)
    assert refusal.value.reason is Reason.EMPTY_MASK


def test_a_circle_goes_through_its_second_point(write_state, graphic, disk):
    path = write_state(([], [graphic("CIRCLE", [20.5, 15.5, 26.5, 23.5])]))
    mask = read_annotations([Annotation(path)], 41, 51).mask
    assert (mask == disk(41, 51, 20, 15, 10)).all()


def test_an_ellipse_spans_its_two_axes(write_state, graphic):
    """Centre (30, 20), radii 15 and 5, the major axis from x towards y by 3 : 4."""
    ends = [39, 32, 21, 8, 26, 23, 34, 17]
    path = write_state(([], [graphic("ELLIPSE", [end + 0.5 for end in ends])]))
    mask = read_annotations([Annotation(path)], 41, 61).mask
    y, x = np.mgrid[:41, :61] - np.array([20, 30])[:, None, None]
    along, across = (3 * x + 4 * y) / 5, (3 * y - 4 * x) / 5
    assert (mask == (along**2 / 15**2 + across**2 / 5**2 <= 1 + 1e-9)).all()


def test_a_point_marks_the_pixel_between_its_corners(write_state, graphic, marked):
    path = write_state(([], [graphic("POINT", [2.9, 1.1])]))
    assert marked(path, 3, 4) == ["....", "..#.", "...."]


def test_graphics_placed_on_the_display_are_refused(write_state, graphic, marked):
    path = write_state(([], [graphic("POLYLINE", SQUARE, GraphicAnnotationUnits="DISPLAY")]))
    with pytest.raises(FileRejected, match="placed on the display") as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def test_of_several_images_the_one_named_by_its_uid_takes_its_graphics(
    write_state, graphic, marked
):
    dot = graphic("POINT", [6.5, 4.5])
    path = write_state((UIDS[:1], [graphic("POLYLINE", SQUARE)]), (UIDS[1:], [dot]), shown=UIDS)
    assert marked(path, 5, 7, image_name="1.2.3.dcm") == SQUARE_ROWS
    assert marked(path, 5, 7, image_name="1.2.4")[4] == "......#"
    with pytest.raises(FileRejected, match="outlines 2 images"):
        marked(path, 5, 7, image_name="other.dcm")


def test_graphics_that_name_no_image_lie_on_all_that_are_shown(write_state, graphic, marked):
    path = write_state(([], [graphic("POLYLINE", SQUARE)]), shown=UIDS)
    assert marked(path, 5, 7, image_name="1.2.4.dcm") == SQUARE_ROWS
    with pytest.raises(FileRejected, match="outlines 2 images"):
        marked(path, 5, 7, image_name="other.dcm")


def test_regions_of_a_report_are_united(write_report, marked):
    path = write_report(
        (UIDS[0], region("POLYLINE", SQUARE)),
        (UIDS[0], region("MULTIPOINT", [0.5, 4.5, 6.5, 4.5])),
        (UIDS[0], region("POLYLINE", [0, 0, 7, 5])),
    )
    assert marked(path, 5, 7) == [*SQUARE_ROWS[:4], "#.....#"]


@pytest.mark.parametrize("by_reference", [False, True])
def test_regions_on_several_images_go_by_the_images_uid(write_report, marked, by_reference):
    path = write_report(
        (UIDS[0], region("POLYLINE", SQUARE)),
        (UIDS[1], region("CIRCLE", [6.5, 4.5, 6.5, 4.7])),
        by_reference=by_reference,
    )
    assert marked(path, 5, 7, image_name="1.2.3.dcm") == SQUARE_ROWS
    assert marked(path, 5, 7, image_name="1.2.4.dcm")[4] == "......#"
    with pytest.raises(FileRejected, match="outlines 2 images"):
        marked(path, 5, 7)


def test_marks_of_computer_aided_detection_are_refused(write_report, marked):
    path = write_report((UIDS[0], region("POLYLINE", SQUARE)), sop_class=MammographyCADSRStorage)
    with pytest.raises(FileRejected, match="computer-aided detection"):
        marked(path, 5, 7)


def test_coordinates_in_a_total_pixel_matrix_are_refused(write_report, marked):
    elements = region("POLYLINE", SQUARE, PixelOriginInterpretation="VOLUME")
    with pytest.raises(FileRejected, match="total pixel matrix"):
        marked(write_report((UIDS[0], elements)), 5, 7)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("CIRCLE", [1, 1, 2, 2, 3, 3]),
        ("ELLIPSE", [1, 1, 2, 2]),
        ("POINT", [1, 1, 2, 2]),
        ("POLYLINE", [1, 1, 2]),
        ("POLYLINE", []),
        ("SECRET", [1, 1]),
        ("POLYLINE", [float("nan")] * 6),
        ("CIRCLE", [1, 1, float("inf"), 1]),
    ],
)
def test_a_graphic_that_makes_no_sense_is_refused(
    write_state, write_report, graphic, marked, kind, data
):
    for path in (
        write_state(([], [graphic(kind, data, GraphicFilled="Y")])),
        write_report((UIDS[0], region(kind, data, GraphicFilled="Y"))),
    ):
        with pytest.raises(FileRejected) as refusal:
            marked(path, 5, 7)
        assert refusal.value.reason is Reason.UNREADABLE_MASK
        assert "SECRET" not in str(refusal.value)


def test_an_odd_number_of_coordinates_is_refused(write_state, graphic, marked):
    with pytest.raises(FileRejected, match="without an even number of coordinates"):
        marked(write_state(([], [graphic("POLYLINE", SQUARE[:-1])])), 5, 7)


def test_a_report_nested_too_deep_is_refused(write_dicom, item, marked, tmp_path):
    path = write_dicom(ComprehensiveSRStorage, ContentSequence=[item(ValueType="TEXT")])
    opening = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    head = path.read_bytes().partition(b"\x40\x00\x30\xa7")[0]
    path.write_bytes(head + opening * 20_000)
    with pytest.raises(FileRejected) as refusal:
        marked(path, 5, 7)
    assert refusal.value.reason is Reason.UNREADABLE_MASK


def coded(item, name, **elements):
    """An item of a report whose concept has this code."""
    return item(ConceptNameCodeSequence=[item(CodeValue=name)], **elements)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ValueType": "SCOORD3D"}, "coordinates in the patient"),
        ({"ValueType": "IMAGE", "name": "121214"}, "lie in a segmentation"),
        ({"ValueType": "IMAGE", "name": "121191"}, "lie in a segmentation"),
    ],
)
def test_regions_of_a_kind_that_is_not_read_are_refused_by_name(
    write_dicom, item, marked, elements, words
):
    region = coded(item, elements.pop("name", "111030"), **elements)
    content = [item(ValueType="CONTAINER", ContentSequence=[region])]
    path = write_dicom(ComprehensiveSRStorage, ValueType="CONTAINER", ContentSequence=content)
    with pytest.raises(FileRejected, match=words):
        marked(path, 5, 7)


@pytest.mark.parametrize(
    ("observers", "verified", "doubted"),
    [
        (["121007"], "UNVERIFIED", True),
        (["121007"], "VERIFIED", False),
        (["121006"], "UNVERIFIED", False),
        (["121006", "121007"], "UNVERIFIED", False),
        ([], "UNVERIFIED", False),
    ],
)
def test_a_report_by_devices_alone_is_doubted_unless_verified(
    write_dicom, item, observers, verified, doubted
):
    content = [
        coded(item, "121005", ValueType="CODE", ConceptCodeSequence=[item(CodeValue=one)])
        for one in observers
    ]
    content.append(item(ValueType="SCOORD", GraphicType="POLYLINE", GraphicData=SQUARE))
    path = write_dicom(
        ComprehensiveSRStorage,
        ValueType="CONTAINER",
        VerificationFlag=verified,
        ContentSequence=content,
    )
    doubts = {doubt.doubt for doubt in read_annotations([Annotation(path)], 5, 7).doubts}
    assert (Doubt.MASK_BY_PROGRAM in doubts) == doubted

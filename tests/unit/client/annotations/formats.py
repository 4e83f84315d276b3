"""Writers of every annotation format, and what becomes of each contradiction in each of them.

Regions are ``(class, polygon)``, polygons ``(N, 2)`` of x and y in pixels of the size drawn on.
"""

import json
import plistlib

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from mamfed_client.annotations.raster import draw
from mamfed_client.annotations.shapes import Shape
from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.rejections import Reason

RIGHT = "right"


def filled(polygon, size):
    points = tuple((float(x), float(y)) for x, y in polygon)
    return draw([Shape("polygon", points)], *size)


def labelled(regions, size):
    """Pixels of the n-th region's class have value n; a finding drawn later lies above."""
    names = list(dict.fromkeys(name for name, _ in regions))
    picture = np.zeros(size, np.uint8)
    for name, polygon in regions:
        picture[filled(polygon, size)] = names.index(name) + 1
    return picture if len(names) > 1 else picture * np.uint8(255)


def write_picture(path, regions, size, image):
    picture = labelled(regions, size)
    if path.suffix == ".jpg" and picture.max() == 2:
        picture *= 127  # a JPEG's blacks are not quite black
    assert cv2.imwrite(str(path), picture)


def dicom(path, sop_class, **elements):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.8.498.9"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def item(**elements):
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def pixels(picture, bits):
    return {
        **{"Rows": picture.shape[-2], "Columns": picture.shape[-1], "SamplesPerPixel": 1},
        **{"PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits},
        **{"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0},
    }


def write_dicom_mask(path, regions, size, image):
    picture = labelled(regions, size)
    data = {"PixelData": picture.tobytes() + b"\0" * (picture.size % 2)}
    dicom(path, SecondaryCaptureImageStorage, **pixels(picture, 8), **data)


def write_seg(path, regions, size, image):
    names = list(dict.fromkeys(name for name, _ in regions)) or ["lesion"]
    frames = np.zeros((len(names), *size), np.uint8)
    for name, polygon in regions:
        frames[names.index(name)] |= filled(polygon, size)
    source = item(SourceImageSequence=[item(ReferencedSOPInstanceUID=image[1])])
    groups = [
        item(
            DerivationImageSequence=[source],
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=n + 1)],
        )
        for n in range(len(names))
    ]
    dicom(
        path,
        SegmentationStorage,
        **pixels(frames, 1),
        SegmentationType="BINARY",
        NumberOfFrames=len(names),
        PixelData=pack_bits(frames),
        SegmentSequence=[
            item(SegmentNumber=n + 1, SegmentLabel=name) for n, name in enumerate(names)
        ],
        PerFrameFunctionalGroupsSequence=groups,
    )


def graphic_data(polygon):
    closed = np.vstack([polygon, polygon[:1]]) + 0.5
    return [float(number) for number in closed.ravel()]


def write_state(path, regions, size, image):
    reference = [item(ReferencedSOPInstanceUID=image[1])]
    annotations = []
    for name, polygon in regions:
        graphic = item(
            GraphicAnnotationUnits="PIXEL",
            GraphicType="POLYLINE",
            GraphicData=graphic_data(polygon),
        )
        group = item(GraphicLayer=name.upper(), GraphicObjectSequence=[graphic])
        group.ReferencedImageSequence = reference
        annotations.append(group)
    dicom(
        path,
        GrayscaleSoftcopyPresentationStateStorage,
        GraphicAnnotationSequence=annotations,
        ReferencedSeriesSequence=[item(ReferencedImageSequence=reference)],
    )


def coded(meaning):
    return [item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning=meaning)]


def write_report(path, regions, size, image):
    content = []
    for name, polygon in regions:
        found = item(
            ValueType="CODE",
            ConceptNameCodeSequence=coded("Finding"),
            ConceptCodeSequence=coded(name),
        )
        reference = item(
            ValueType="IMAGE", ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=image[1])]
        )
        region = item(
            ValueType="SCOORD",
            ConceptNameCodeSequence=coded("Image Region"),
            GraphicType="POLYLINE",
            GraphicData=graphic_data(polygon),
            ContentSequence=[reference],
        )
        content.append(item(ValueType="CONTAINER", ContentSequence=[found, region]))
    dicom(path, ComprehensiveSRStorage, ValueType="CONTAINER", ContentSequence=content)


def write_xml(path, regions, size, image):
    rois = [
        {"Name": name, "Point_px": [f"({x:.3f}, {y:.3f})" for x, y in polygon]}
        for name, polygon in regions
    ]
    path.write_bytes(plistlib.dumps({"Images": [{"ImageIndex": 0, "ROIs": rois}]}))


def via_shape(polygon):
    x, y = polygon.T.astype(float).tolist()
    return {"name": "polygon", "all_points_x": x, "all_points_y": y}


def write_via_json(path, regions, size, image):
    listed = [
        {"shape_attributes": via_shape(polygon), "region_attributes": {"type": name}}
        for name, polygon in regions
    ]
    path.write_text(json.dumps({image[0]: {"filename": image[0], "regions": listed}}))


def write_via_csv(path, regions, size, image):
    def quoted(value):
        return '"' + json.dumps(value).replace('"', '""') + '"'

    rows = [(via_shape(polygon), {"type": name}) for name, polygon in regions] or [({}, {})]
    lines = [f"{image[0]},{quoted(shape)},{quoted(named)}" for shape, named in rows]
    header = "filename,region_shape_attributes,region_attributes"
    path.write_text("\n".join([header, *lines, ""]))


def coco(path, regions, size, image, segmentation):
    names = list(dict.fromkeys(name for name, _ in regions))
    document = {
        "images": [{"id": 5, "file_name": image[0], "height": size[0], "width": size[1]}],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": 5, "category_id": names.index(name), "segmentation": segmentation(polygon)}
            for name, polygon in regions
        ],
    }
    path.write_text(json.dumps(document))


def write_coco(path, regions, size, image):
    coco(path, regions, size, image, lambda p: [(p + 0.5).ravel().astype(float).tolist()])


def write_coco_runs(path, regions, size, image):
    def runs(polygon):
        flat = filled(polygon, size).T.ravel()
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]])))
        edges = np.concatenate([[0], ends, [flat.size]])
        return {"size": list(size), "counts": np.diff(edges)[: len(edges) - 1].tolist()}

    coco(path, regions, size, image, runs)


FORMATS = {
    "PNG": (".png", write_picture),
    "TIFF": (".tif", write_picture),
    "JPEG": (".jpg", write_picture),
    "BMP": (".bmp", write_picture),
    "DICOM mask": (".dcm", write_dicom_mask),
    "DICOM SEG": (".dcm", write_seg),
    "presentation state": (".dcm", write_state),
    "structured report": (".dcm", write_report),
    "INbreast XML": (".xml", write_xml),
    "VIA JSON": (".json", write_via_json),
    "VIA CSV": (".csv", write_via_csv),
    "COCO polygons": (".json", write_coco),
    "COCO run lengths": (".json", write_coco_runs),
}
PICTURES = ("PNG", "TIFF", "JPEG", "BMP", "DICOM mask")
SIZED = (*PICTURES, "DICOM SEG", "COCO polygons", "COCO run lengths")
BY_UID = ("DICOM SEG", "presentation state", "structured report")
BY_NAME = ("VIA JSON", "VIA CSV", "COCO polygons", "COCO run lengths")
FILLED = (*PICTURES, "DICOM SEG", "COCO run lengths")
NAMED = tuple(name for name in FORMATS if name not in PICTURES)

EXPECTED = {
    "as it should be": dict.fromkeys(FORMATS, RIGHT),
    "breast and lesion": {
        **dict.fromkeys(NAMED, RIGHT),
        **dict.fromkeys(PICTURES, Reason.UNKNOWN_CLASS),
        "JPEG": Reason.UNREADABLE_MASK,
    },
    "malignant and benign": {
        **dict.fromkeys(NAMED, RIGHT),
        **dict.fromkeys(PICTURES, Reason.UNKNOWN_CLASS),
        "JPEG": Reason.UNREADABLE_MASK,
    },
    "two unknown classes": {
        **dict.fromkeys(FORMATS, Reason.UNKNOWN_CLASS),
        "JPEG": Reason.UNREADABLE_MASK,
    },
    "one unknown class": dict.fromkeys(NAMED, Doubt.MASK_CLASS),
    "drawn at half size": dict.fromkeys(SIZED, RIGHT),
    "drawn at another aspect": dict.fromkeys(SIZED, Reason.MASK_SIZE),
    "about another image": {
        **dict.fromkeys(BY_UID, Doubt.MASK_OF_ANOTHER),
        **dict.fromkeys(BY_NAME, Reason.EMPTY_MASK),
    },
    "marks nothing": dict.fromkeys(FORMATS, Reason.EMPTY_MASK),
    "marks everything": dict.fromkeys(FORMATS, Reason.IMPLAUSIBLE_MASK),
    "marks the breast": dict.fromkeys(FORMATS, Reason.IMPLAUSIBLE_MASK),
    "lies beside the breast": dict.fromkeys(FORMATS, Doubt.MASK_OUTSIDE),
    "inverted": dict.fromkeys(FILLED, Reason.IMPLAUSIBLE_MASK),
}
"""Contradiction -> format -> outcome. What a format cannot have is left out: a VIA file states no
size, a picture no image."""


def table():
    """Lay out what is expected as the documentation shows it, formats of one behaviour together."""
    groups = {}
    for name in FORMATS:
        column = tuple(str(outcomes.get(name, "-")) for outcomes in EXPECTED.values())
        groups.setdefault(column, []).append(name)
    heads = [", ".join(names) for names in groups.values()]
    cells = [[column[n] for column in groups] for n in range(len(EXPECTED))]
    rows = [f"| {what} | {' | '.join(row)} |" for what, row in zip(EXPECTED, cells, strict=True)]
    return "\n".join([f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", *rows])

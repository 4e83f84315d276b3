"""The segmentation lies on the file's own grid, the right way round, whatever the file."""

import numpy as np
import pydicom
import pytest
import torch
from scipy import ndimage

from mamfed_client.imaging.preprocess import prepare
from mamfed_client.prediction.lesions import mark
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.training.inference import load_network, malignancy_of

VENDORS = ["aurora", "borealis", "cirrus"]
SIDES_AND_VIEWS = [("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO")]


def on_the_files_grid(square, way):
    """Map back pixel by pixel, from the numbers of the transform alone: no OpenCV."""
    crop = np.mgrid[way.top : way.bottom, way.left : way.right] + 0.5
    height, width = way.shape
    rows = (crop[0] - way.top) * height / (way.bottom - way.top) - 0.5
    columns = (crop[1] - way.left) * width / (way.right - way.left) - 0.5
    if way.flipped:
        columns = width - 1 - columns
    values = ndimage.map_coordinates(
        square[:height, :width], [rows, columns], order=1, mode="nearest"
    )
    whole = np.zeros((way.rows, way.columns), np.float32)
    whole[way.top : way.bottom, way.left : way.right] = values
    return whole


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def expected_mask(path, checkpoint, allow=frozenset()):
    state, facts, _ = load_checkpoint(checkpoint)
    with Decoder() as decoder:
        mammogram, _ = decoder.mammogram(path, allow)
    sample, way = prepare(mammogram, None, facts.plan.image_size)
    network = load_network(state, facts.plan, torch.device("cpu"))
    square = malignancy_of(network, sample, facts.plan, network.subtraction.gain.device)
    return on_the_files_grid(square, way) >= facts.threshold


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("side", "view"), SIDES_AND_VIEWS)
def test_the_segmentation_is_the_predicted_map(
    write_phantom, predicted, checkpoint, vendor, side, view, mirrored
):
    file = write_phantom(vendor, side, view, mirrored=mirrored)
    ((record, folder),) = predicted(file.path)
    marked = pydicom.dcmread(folder / "segmentation.dcm").pixel_array != 0
    expected = expected_mask(file.path, checkpoint)
    assert marked.shape == expected.shape == file.phantom.mask.shape
    assert 0.01 < expected.mean() < 0.9
    assert iou(marked, expected) >= 0.99
    assert iou(marked[:, ::-1], expected) < 0.9, "a mirrored one would pass, too"
    assert record["marked_pixels"] == marked.sum()
    assert (record["laterality"], record["view"]) == (side, view)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("side", "view"), SIDES_AND_VIEWS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_network_that_finds_the_truth_marks_it_where_it_is(
    write_phantom, vendor, side, view, mirrored
):
    file = write_phantom(vendor, side, view, mirrored=mirrored)
    with Decoder() as decoder:
        mammogram, _ = decoder.mammogram(file.path)
    sample, way = prepare(mammogram, file.phantom.mask, 192)
    found = mark(way.invert(sample.mask), 0.5, None)
    assert iou(found.mask, file.phantom.mask) > 0.8

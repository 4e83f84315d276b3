"""What the readers of annotations are tested with."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation


@pytest.fixture
def marked():
    """Read one file as the annotation of an image; pixels come back as ``#`` and ``.`` rows."""

    def read(path, rows, columns, image_name="1.png"):
        result = read_annotations([Annotation(path, image_name)], rows, columns)
        return ["".join("#" if pixel else "." for pixel in row) for row in result.mask]

    return read


@pytest.fixture
def disk():
    """A disk by its formula."""

    def draw(rows, columns, x, y, radius):
        grid_y, grid_x = np.mgrid[:rows, :columns]
        return (grid_x - x) ** 2 + (grid_y - y) ** 2 <= radius**2

    return draw


@pytest.fixture
def write_dicom(tmp_path):
    """Write a DICOM object of nobody in particular."""

    def write(sop_class, *, name="1.dcm", syntax=ExplicitVRLittleEndian, **elements):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.8.498.1"
        dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        if syntax.is_encapsulated:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write


@pytest.fixture
def item():
    """A data set within a sequence."""

    def build(**elements):
        dataset = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        return dataset

    return build

"""Small mammograms in real file formats, drawn rather than photographed."""

import csv
import json

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian
from tests.unit.client.guarded import guarded, site  # noqa: F401 - fixtures
from typer.testing import CliRunner

from mamfed_client.cli.main import app

HEADER = ["image", "mask", "patient_id", "laterality", "view", "pathology", "birads"]


def draw_breast(rows=181, columns=131, *, seed=0):
    """Half an ellipse, chest wall at the left edge, in 0..1 on a black background."""
    y, x = np.mgrid[:rows, :columns]
    inside = ((y - rows * 0.5) / (rows * 0.42)) ** 2 + (x / (columns * 0.7)) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 0.02, (rows, columns))
    levels = 0.35 + 0.2 * np.cos(x / 9) * np.cos(y / 11) + noise
    return np.where(inside, levels, 0).clip(0, 1).astype(np.float32), inside


def draw_lesion(rows=181, columns=131):
    """A disk of 15 pixels' radius amid the breast."""
    y, x = np.mgrid[:rows, :columns]
    return (y - rows * 0.5) ** 2 + (x - columns * 0.3) ** 2 < 15**2


def write_png(path, pixels, *, bits=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    full, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    assert cv2.imwrite(str(path), np.rint(pixels * full).astype(dtype))


def write_dicom(path, stored, **elements):
    """Write stored values as an uncompressed 12-bit mammogram; elements override the usual."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    syntax = elements.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    encoding = {"implicit_vr": False, "little_endian": True} if syntax.is_private else {}
    dataset.save_as(path, enforce_file_format=True, **encoding)


class Folder:
    """A site's folder under construction: each case is an image, perhaps a mask, and a row."""

    def __init__(self, path):
        self.path = path
        self.rows = []

    def add(self, patient_id, *, pathology="", birads="", lesion=False, mask=False, **cells):
        name = f"{len(self.rows) + 1}.png"
        breast, _ = draw_breast(seed=len(self.rows))
        if lesion:
            breast = np.where(draw_lesion(), 0.9, breast)
        write_png(self.path / "images" / name, breast)
        if mask:
            write_png(self.path / "masks" / name, draw_lesion().astype(float))
        row = {
            "image": f"images/{name}",
            "mask": f"masks/{name}" if mask else "",
            "patient_id": patient_id,
            "laterality": "L",
            "view": "CC",
            "pathology": pathology,
            "birads": birads,
        }
        self.rows.append(row | cells)
        return self

    def malignant(self, patient_id, **cells):
        return self.add(patient_id, pathology="malignant", lesion=True, mask=True, **cells)

    def benign(self, patient_id, **cells):
        return self.add(patient_id, pathology="benign", **cells)

    def write(self):
        columns = list(dict.fromkeys([*HEADER, *(key for row in self.rows for key in row)]))
        with (self.path / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return self.path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "site"
    path.mkdir()
    return Folder(path)


@pytest.fixture
def drawing():
    """The functions of this file, for tests that need another drawing than ``folder`` makes."""

    class Drawing:
        breast = staticmethod(draw_breast)
        lesion = staticmethod(draw_lesion)
        png = staticmethod(write_png)
        dicom = staticmethod(write_dicom)

    return Drawing


@pytest.fixture
def call():
    def invoke(*words, code=0):
        result = CliRunner().invoke(app, ["data", *map(str, words)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return invoke


@pytest.fixture
def check(call):
    def run(folder, *options, code=0):
        return json.loads(call("check", folder, "--format", "json", *options, code=code).stdout)

    return run


@pytest.fixture
def prepare(call):
    def run(folder, out, *options):
        words = ("prepare", folder, "--out", out, "--size", 64, "--format", "json", *options)
        return json.loads(call(*words).stdout)

    return run


@pytest.fixture
def mixed(folder):
    """Two benign patients, two malignant ones with masks, and three rows that cannot be used."""
    folder.benign("P-one", density="b").benign("P-two").malignant("P-three").malignant("P-four")
    folder.malignant("P-five").benign("P-six").benign("P-seven")
    folder.write()
    (folder.path / "masks/5.png").unlink()
    (folder.path / "images/6.png").write_bytes(b"no picture")
    cut = (folder.path / "images/7.png").read_bytes()
    (folder.path / "images/7.png").write_bytes(cut[: len(cut) // 2])
    return folder.path


@pytest.fixture
def export(tmp_path, drawing):
    """A folder of two DICOM files without a table; one is no mammogram."""
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    (tmp_path / "export").mkdir()
    usual = {"Modality": "MG", "ImageLaterality": "R", "ViewPosition": "MLO"}
    drawing.dicom(tmp_path / "export/a", breast, Manufacturer="HOLOGIC, Inc.", **usual)
    drawing.dicom(tmp_path / "export/b.dcm", breast, **usual | {"Modality": "CR"})
    return tmp_path / "export"


@pytest.fixture
def content_of():
    """Tells every file of a folder and its bytes."""

    def read(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    return read


@pytest.fixture(scope="module")
def breast():
    """12 bits with tissue on both sides of 2048, and noise as a detector has."""
    y, x = np.mgrid[:230, :170]
    inside = (x / 120) ** 2 + ((y - 115) / 95) ** 2 < 1
    tone = np.where(inside, 0.5 + 0.3 * np.cos(x / 13) * np.cos(y / 17), 0.02)
    noise = np.random.default_rng(0).normal(0, 0.003, tone.shape)
    return np.rint((tone + noise).clip(0, 1) * 4095).astype(np.uint16)

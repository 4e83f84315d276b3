"""Mammograms with a lesion at a known place, and what the command makes of a folder of them."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.preparation.prepared_folder import SAMPLES, load_intake
from mamfed_client.preparation.sample_store import SampleStore
from mamfed_simulations.phantoms.dicom_writer import file_meta, make_uid
from mamfed_simulations.phantoms.transfer_syntaxes import encode

SIZE = 256
BRIGHT = 0.8
"""Share of full scale that lesions exceed in a sample, and other tissue does not."""


class Scene(NamedTuple):
    """A drawn breast: ``(H, W)`` float32 in 0..1, and where it and its lesion, a circle, are."""

    side: str
    grey: np.ndarray
    breast: np.ndarray
    lesion: np.ndarray
    x: int
    y: int
    radius: int

    @property
    def outline(self):
        """The circle as 36 vertices (x, y)."""
        angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
        return [
            (round(self.x + self.radius * np.cos(a), 3), round(self.y + self.radius * np.sin(a), 3))
            for a in angles
        ]


def draw(side, seed, *, lesion=False, at=(0.28, 0.38), rows=431, columns=337):
    """Half an ellipse, its chest wall where the side has it; the lesion is a disk off its axis."""
    y, x = np.mgrid[:rows, :columns]
    inside = ((y - rows * 0.5) / (rows * 0.42)) ** 2 + (x / (columns * 0.7)) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 0.02, (rows, columns))
    levels = np.where(inside, 0.35 + 0.15 * np.cos(x / 23) * np.cos(y / 27) + noise, 0).clip(0, 1)
    centre_x, centre_y, radius = round(columns * at[0]), round(rows * at[1]), round(rows * 0.08)
    if side == "R":
        levels, inside, centre_x = levels[:, ::-1], inside[:, ::-1], columns - 1 - centre_x
    disk = (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2
    grey = np.where(disk, 0.9, levels) if lesion else levels
    return Scene(side, grey.astype(np.float32), inside, disk & lesion, centre_x, centre_y, radius)


def write_dicom(path, grey, *, bits=12, syntax="explicit", inverted=False, **elements):
    """Write a mammogram in a transfer syntax; elements override the usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    top = 2**bits - 1
    stored = np.rint(np.asarray(grey, np.float64) * top).astype("<u2")
    dataset = Dataset()
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = make_uid(str(path))
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    stored = top - stored if inverted else stored
    data = stored.astype(np.uint8).tobytes() if bits == 8 else stored.tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))
    dataset.file_meta = file_meta(dataset)
    encode(dataset, syntax)
    dataset.save_as(path, enforce_file_format=True)


def write_picture(path, grey, dtype=np.uint8):
    """Write a grey picture in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.rint(np.asarray(grey, np.float64) * np.iinfo(dtype).max).astype(dtype)
    assert cv2.imwrite(str(path), pixels)


@dataclass
class TakenIn:
    """What the commands printed of a folder, and the samples they made."""

    document: dict
    items: dict[str, dict]
    entries: dict[str, object]

    def counts(self, *names):
        return tuple(self.document[name] for name in names)

    @property
    def stages(self):
        """Images and patients of stage 1, then of stage 2."""
        return tuple(
            (self.document[stage]["images"], self.document[stage]["patients"])
            for stage in ("stage1", "stage2")
        )

    def serves(self, name):
        return self.items[name]["serves"]

    def sample(self, name):
        return self.entries[name].load(name)

    def transform(self, name):
        return self.entries[name].transform()


@pytest.fixture(scope="session")
def drawn():
    """The functions of this file, for fixtures of any scope."""
    return SimpleNamespace(scene=draw, dicom=write_dicom, picture=write_picture)


@pytest.fixture(scope="session")
def take_in(tmp_path_factory):
    """Check and prepare a folder, which must come to the same."""

    def run(folder):
        out = tmp_path_factory.mktemp("prepared") / "out"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MAMFED_CACHE", str(out.parent / "cache"))
            patch.setenv("MAMFED_SECRET", str(out.parent / "secret"))
            found = call("check", folder)
            assert call("prepare", folder, "--out", out, "--size", SIZE) == found
        items = {item["file"]: item for item in found.pop("items")}
        names = {item["row"]: name for name, item in items.items()}
        intake, _, _ = load_intake(out)
        store = SampleStore(out / SAMPLES)
        digests = {names[case.row.row_number]: case.result.digest for case in intake.accepted}
        return TakenIn(found, items, {name: store.find(d) for name, d in digests.items() if d})

    return run


def call(*words):
    result = CliRunner().invoke(app, ["data", *map(str, words), "--format", "json", "--list"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def check_lesion():
    """Check that a sample's mask lies on the lesions drawn and on what is bright in its image."""

    def check(taken, name, scene):
        sample = taken.sample(name)
        expected = taken.transform(name).apply_mask(scene.lesion)
        bright = sample.image > BRIGHT * np.iinfo(np.uint16).max
        assert expected.sum() > 300
        assert overlap(sample.mask, expected) > 0.9
        assert overlap(sample.mask, bright) > 0.9
        other = sample.breast_mask & ~sample.mask
        assert sample.image[sample.mask].mean() > 1.8 * sample.image[other].mean()
        check_breast(taken, name, scene)

    return check


@pytest.fixture(scope="session")
def check_normal():
    """Check that a sample shows the breast drawn and marks nothing."""

    def check(taken, name, scene):
        assert not taken.sample(name).mask.any()
        check_breast(taken, name, scene)

    return check


def check_breast(taken, name, scene):
    """The breast drawn is the field, its chest wall fills the left edge, and around it is black."""
    sample = taken.sample(name)
    assert taken.items[name]["laterality"] == scene.side
    assert overlap(sample.breast_mask, taken.transform(name).apply_mask(scene.breast)) > 0.95
    columns = np.flatnonzero(sample.breast_mask.any(axis=0))
    assert sample.breast_mask[:, columns[0] + 2].mean() > 0.8
    assert sample.breast_mask[:, columns[-1] - 2].mean() < 0.4
    assert sample.image[sample.breast_mask].mean() > 0.2 * np.iinfo(np.uint16).max
    assert not sample.image[~sample.breast_mask].any()


def overlap(one, other):
    """Intersection over union."""
    return (one & other).sum() / (one | other).sum()

"""Phantoms for every federation of these tests, drawn once, an archive, and a browser."""

import pydicom
import pytest
from tests.processes.browser import CHROMIUM
from tests.processes.orthanc import Orthanc
from tests.processes.phantoms import write_phantoms

from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Three hospitals of seven images each, by name."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), benign=3, malignant=4)


@pytest.fixture(scope="session")
def archive_phantoms(tmp_path_factory):
    """Sixty studies of two images, of three vendors; archives know every object's modality."""
    folder = tmp_path_factory.mktemp("phantoms")
    for name, look in VENDORS.items():
        write_cohort(folder / name, look, benign=30, malignant=10, seed=0, scale=0.1)
    for file in folder.rglob("*.dcm"):
        header = pydicom.dcmread(file)
        header.Modality = "MG"
        header.AccessionNumber = header.PatientID[3:]
        header.save_as(file)
    return folder


@pytest.fixture(scope="session")
def archive(archive_phantoms, tmp_path_factory):
    """An Orthanc that holds them."""
    archive = Orthanc(tmp_path_factory.mktemp("orthanc"))
    try:
        archive.store(sorted(archive_phantoms.rglob("*.dcm")))
        yield archive
    finally:
        archive.close()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield program
        program.close()

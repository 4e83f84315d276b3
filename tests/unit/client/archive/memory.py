"""An archive in memory, for what no real one does when asked: to lie, to break, to be slow."""

from io import BytesIO

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from mamfed_client.archive.objects import ObjectFound, ObjectGone, SeriesFound, StudyFound


def dicom_object(uid, study="1.2.1", **elements):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = uid, study
    dataset.SeriesInstanceUID, dataset.Modality = f"{study}.0", "MG"
    dataset.ImageLaterality = "L"
    dataset.PatientName, dataset.PatientID = "Secret^Name", f"secret-{study}"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


class MemoryArchive:
    """Studies with one series each; an object is bytes, or the error that its fetch raises."""

    def __init__(self, objects):
        self.held = objects  # {study: {uid: bytes or error}}
        self.asked = []
        self.stored = []

    def studies(self, query):
        for study in self.held:
            if query.study in ("", study):
                yield StudyFound(study, "20240105", f"secret-{study}", f"acc-{study}")

    def series(self, study):
        return [SeriesFound(study, f"{study}.0", "MG", "Vendor")]

    def objects(self, series):
        return [ObjectFound(uid) for uid in self.held[series.study]]

    def fetch(self, name):
        self.asked.append(name.uid)
        found = self.held[name.study].get(name.uid, ObjectGone())
        if isinstance(found, Exception):
            raise found
        return found

    def send(self, data):
        uid = pydicom.dcmread(BytesIO(data)).SOPInstanceUID
        found = self.held.get(uid)
        if found is not None:
            raise found
        self.stored.append(uid)

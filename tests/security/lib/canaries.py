"""Random words in every place of a site's data that holds a name or free text."""

from __future__ import annotations

import base64
import csv
import random
from collections.abc import Iterator
from pathlib import Path

import pydicom

TAGS = (
    "PatientName", "PatientID", "OtherPatientNames", "PatientAddress", "PatientComments",
    "PatientMotherBirthName", "MedicalRecordLocator", "AdditionalPatientHistory", "Occupation",
    "AccessionNumber", "ReferringPhysicianName", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "StationName", "OperatorsName", "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy", "StudyDescription", "SeriesDescription", "StudyID",
    "ProtocolName", "DeviceSerialNumber", "ImageComments", "RequestedProcedureDescription",
    "RequestingPhysician", "DerivationDescription", "PerformedProcedureStepDescription",
    "ManufacturerModelName", "Manufacturer", "RequestAttributes",
)  # fmt: skip
"""Attributes that get a word of their own in one image each."""
WORDS = 50


class Canaries:
    """Words that must leave nowhere.

    Attributes:
        words: Each word with the place that holds it.
    """

    def __init__(self, seed: int) -> None:
        """Draw the words of a seed."""
        self._random = random.Random(seed)
        self.words: dict[str, str] = {}

    def word(self, place: str) -> str:
        """Return a new word for a place; 16 characters, as short attributes hold."""
        word = "Zq" + "".join(self._random.choices("bcdfghjkmnpqrstvwxz", k=12))
        self.words[word] = place
        return word

    def put_into(self, folder: Path) -> None:
        """Put words into the images, names and table of a phantom cohort."""
        images = sorted((folder / "images").glob("*.dcm"))
        for number, tag in enumerate(tag for tag in TAGS if tag != "RequestAttributes"):
            self._put_tag(images[number % len(images)], tag)
        with (folder / "labels.csv").open() as file:
            rows = list(csv.DictReader(file))
        patients: dict[str, str] = {}
        for number, row in enumerate(rows):
            old = row["patient_id"]
            row["patient_id"] = patients.setdefault(old, self.word("patient_id in labels.csv"))
            if number < 6:
                self._rename(folder, row, "image")
            if row["mask"] and number >= len(rows) - 3:
                self._rename(folder, row, "mask")
        rows[0]["vendor"] = self.word("vendor in labels.csv")
        rows[1]["finding"] = self.word("finding in labels.csv")
        broken = f"images/{self.word('name of a broken file')}.dcm"
        (folder / broken).write_bytes(self.word("content of a broken file").encode() * 50)
        rows.append({**rows[2], "image": broken, "mask": ""})
        missing = f"images/{self.word('name of a missing file')}.dcm"
        rows.append({**rows[3], "image": missing, "mask": ""})
        with (folder / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def _put_tag(self, image: Path, tag: str) -> None:
        data = pydicom.dcmread(image)
        setattr(data, tag, self.word(f"{tag} of an image"))
        if tag == "PatientName":
            block = data.private_block(0x0019, "NORTH", create=True)
            block.add_new(1, "LO", self.word("a private attribute"))
        data.save_as(image)

    def _rename(self, folder: Path, row: dict[str, str], key: str) -> None:
        old = Path(row[key])
        row[key] = str(old.with_name(f"{self.word(f'name of a file ({key})')}{old.suffix}"))
        (folder / old).rename(folder / row[key])

    def found_in(self, data: bytes) -> list[str]:
        """Return the places whose words stand in some bytes, in any usual spelling."""
        return [p for w, p in self.words.items() if any(f in data for f in spellings(w))]


def spellings(word: str) -> Iterator[bytes]:
    """Yield a word as text of one and two bytes a character, in hex, and in base64."""
    text = word.encode()
    yield from (text, text.lower(), text.upper(), word.encode("utf-16-le"))
    yield from (text.hex().encode(), text.hex().upper().encode())
    for shift in range(3):  # base64 of a longer text has the word at one of three offsets
        inner = base64.b64encode(b"\0" * shift + text)
        yield inner[4 if shift else 0 : -4]

"""What an object made of an image repeats of its header, by module of PS3.3, and how it is read.

The decoding process reads it; what it answers is JSON: a text for an element, several values joined
by a backslash; a list of mappings for a sequence; None for what is there but cannot be repeated.
All of it identifies the patient.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from mamfed_client.imaging.dicom_header import numbers, text, value

Header = dict[str, "str | list[Header] | None"]
"""Elements by keyword."""


class Module(NamedTuple):
    """A module whose attributes are repeated.

    Attributes:
        name: As PS3.3 calls it.
        clause: Where PS3.3 lays it out.
        keywords: Its attributes; those that are retired lie in archives.
    """

    name: str
    clause: str
    keywords: tuple[str, ...]


def _module(name: str, clause: str, keywords: str) -> Module:
    """Leave out what this pydicom does not know."""
    known = (keyword for keyword in keywords.split() if tag_for_keyword(keyword) is not None)
    return Module(name, clause, tuple(known))


MODULES = (
    _module(
        "Patient",
        "C.7.1.1",
        "PatientName PatientID IssuerOfPatientID TypeOfPatientID "
        "IssuerOfPatientIDQualifiersSequence SourcePatientGroupIdentificationSequence "
        "GroupOfPatientsIdentificationSequence ReferencedPatientSequence PatientBirthDate "
        "PatientBirthTime PatientBirthDateInAlternativeCalendar "
        "PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar PatientSex "
        "QualityControlSubject StrainDescription StrainNomenclature StrainStockSequence "
        "StrainAdditionalInformation StrainCodeSequence GeneticModificationsSequence "
        "OtherPatientIDs OtherPatientNames OtherPatientIDsSequence "
        "ReferencedPatientPhotoSequence EthnicGroup EthnicGroups EthnicGroupCodeSequence "
        "PatientComments PatientSpeciesDescription PatientSpeciesCodeSequence "
        "PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence "
        "ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved "
        "DeidentificationMethod DeidentificationMethodCodeSequence",
    ),
    _module(
        "Clinical Trial Subject",
        "C.7.1.3",
        "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName "
        "IssuerOfClinicalTrialProtocolID OtherClinicalTrialProtocolIDsSequence "
        "ClinicalTrialSiteID ClinicalTrialSiteName IssuerOfClinicalTrialSiteID "
        "ClinicalTrialSubjectID IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID "
        "IssuerOfClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName "
        "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    ),
    _module(
        "General Study",
        "C.7.2.1",
        "StudyInstanceUID StudyDate StudyTime ReferringPhysicianName "
        "ReferringPhysicianIdentificationSequence ConsultingPhysicianName "
        "ConsultingPhysicianIdentificationSequence StudyID AccessionNumber "
        "IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord "
        "PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy "
        "PhysiciansReadingStudyIdentificationSequence RequestingService "
        "RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence "
        "ReasonForPerformedProcedureCodeSequence",
    ),
    _module(
        "Patient Study",
        "C.7.2.2",
        "AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize "
        "PatientSizeCodeSequence PatientBodyMassIndex MeasuredAPDimension "
        "MeasuredLateralDimension PatientWeight MedicalAlerts Allergies Occupation SmokingStatus "
        "AdditionalPatientHistory PregnancyStatus LastMenstrualDate PatientSexNeutered "
        "ReasonForVisit ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence "
        "ServiceEpisodeID ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence PatientState "
        "GenderIdentitySequence SexParametersForClinicalUseCategorySequence "
        "SexParametersForClinicalUseCategoryComment PersonNamesToUseSequence "
        "ThirdPersonPronounsSequence",
    ),
    _module(
        "Clinical Trial Study",
        "C.7.2.3",
        "ClinicalTrialTimePointID ClinicalTrialTimePointDescription "
        "LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType "
        "ClinicalTrialTimePointTypeCodeSequence IssuerOfClinicalTrialTimePointID "
        "ConsentForClinicalTrialUseSequence",
    ),
    _module("Frame of Reference", "C.7.4.1", "FrameOfReferenceUID PositionReferenceIndicator"),
    _module(
        "General Image, lossy image compression",
        "C.7.6.1.1.5",
        "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod",
    ),
    _module(
        "SOP Common, what dates and data mean",
        "C.12.1",
        "TimezoneOffsetFromUTC SyntheticData LongitudinalTemporalInformationModified",
    ),
)
REPEATED = tuple(keyword for module in MODULES for keyword in module.keywords)
"""What a derived object repeats."""
REFERRED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientOrientation"),
    *("Manufacturer", "ManufacturerModelName", "StationName", "InstitutionName"),
    *("InstitutionAddress", "InstitutionalDepartmentName", "DeviceSerialNumber"),
    *("SoftwareVersions", "DateOfLastCalibration", "TimeOfLastCalibration"),
)
"""What it refers to the image and to the unit by (PS3.3 C.7.6.16.2.6, C.12.1)."""
KEYWORDS = frozenset((*REPEATED, *REFERRED))

LONG = frozenset({"LT", "ST", "UT"})
"""Texts of one value, in which a backslash is a letter and a line may end (PS3.5 6.2)."""
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})
MOST_BYTES = 48 << 10
"""Of all that is repeated: a header may hold more, a derived object need not."""
MOST_DEPTH, MOST_ITEMS = 5, 64
MOST_TEXT = 10240
"""Characters of an element's values; the longest that PS3.5 6.2 limits has as many."""

LOSSY: dict[str, str] = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Methods (PS3.3 C.7.6.1.1.5.1) of the transfer syntaxes that always lose something."""
PERHAPS_LOSSY: dict[str, str] = {JPEG2000: "ISO_15444_1", "1.2.840.10008.1.2.4.203": "ISO_15444_15"}
"""Those of the syntaxes of which the codestream tells: JPEG 2000, also of high throughput."""
CODING_STYLE = b"\xff\x52"
WAVELET = 13
"""Where the marker's segment names its wavelet (ISO 15444-1 A.6.1): 0 is the one that rounds."""


def read_repeated_header(dataset: Dataset) -> Header:
    """Read what a derived object needs of a data set's header."""
    header: Header = {}
    for keyword in (*REPEATED, *REFERRED):
        if keyword in dataset:
            header[keyword] = _content(dataset, keyword, 0)
    header |= _lossy(dataset)
    room = MOST_BYTES
    for keyword in sorted(header, key=lambda name: len(json.dumps(header[name]))):
        room -= len(json.dumps([keyword, header[keyword]]))
        if room < 0:
            header[keyword] = None
    return header


def _content(dataset: Dataset, keyword: str, depth: int) -> str | list[Header] | None:
    """Return an element's content; None where it makes no sense."""
    try:
        found = dataset[keyword].value
        if isinstance(found, Items):
            if depth == MOST_DEPTH or len(found) > MOST_ITEMS:
                return None
            return [_item(item, depth + 1) for item in found]
        if found is None:
            return ""
        if isinstance(found, bytes):
            return None
        several = isinstance(found, Sequence) and not isinstance(found, str)
        keep = dictionary_VR(keyword) in LONG
        words = [str(one) for one in (found if several else (found,))]
        joined = "\\".join(word if keep else word.strip() for word in words)
        return joined if len(joined) <= MOST_TEXT else None
    except MemoryError:
        raise
    except Exception:  # values are parsed when asked for: whatever parsing raises, it is no value
        return None


def _item(item: Dataset, depth: int) -> Header:
    """Read an item: all public elements that are texts, numbers or sequences."""
    keywords = (keyword_for_tag(tag) for tag in item.keys())
    kept = (keyword for keyword in keywords if keyword and dictionary_VR(keyword) not in BINARY)
    return {keyword: _content(item, keyword, depth) for keyword in kept}


def _lossy(dataset: Dataset) -> Header:
    """Say that an image has lost something, where its encoding says so and its header does not.

    Anonymisers and gateways drop the attributes and keep the pixels.
    """
    syntax = text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID")
    method = LOSSY.get(syntax)
    if method is None and syntax in PERHAPS_LOSSY and _rounds(dataset):
        method = PERHAPS_LOSSY[syntax]
    if method is None:
        return {}
    lossy: Header = {"LossyImageCompression": "01"}
    if not text(dataset, "LossyImageCompressionMethod"):
        lossy["LossyImageCompressionMethod"] = method
    if not text(dataset, "LossyImageCompressionRatio") and (ratio := _ratio(dataset)):
        lossy["LossyImageCompressionRatio"] = f"{ratio:.4g}"
    return lossy


def _rounds(dataset: Dataset) -> bool:
    """Tell whether a JPEG 2000 codestream was made by the wavelet that cannot be undone exactly."""
    encoded = _encoded(dataset)
    start = encoded.find(CODING_STYLE)
    return start >= 0 and encoded[start + WAVELET : start + WAVELET + 1] == b"\0"


def _encoded(dataset: Dataset) -> bytes:
    found = value(dataset, "PixelData")
    return found if isinstance(found, bytes) else b""


def _ratio(dataset: Dataset) -> float | None:
    """Return by how much an image was compressed, of its bytes."""
    sizes = [numbers(dataset, name)[:1] for name in ("Rows", "Columns", "BitsStored")]
    encoded = len(_encoded(dataset))
    if not all(sizes) or not encoded:
        return None
    rows, columns, bits = (size[0] for size in sizes)
    return rows * columns * (-(-bits // 8)) / encoded

"""Read the header elements that an object derived from an image repeats, by module of PS3.3.

The decoding process reads them and answers in JSON: an element is a text, with multiple values
joined by backslashes; a sequence is a list of mappings; None marks an element that is present but
cannot be repeated. All of it identifies the patient.
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
        name: Its name in PS3.3.
        clause: Its clause in PS3.3.
        keywords: Its attributes, including retired ones that occur in archives.
    """

    name: str
    clause: str
    keywords: tuple[str, ...]


def _module(name: str, clause: str, keywords: str) -> Module:
    """Build a module, skipping keywords that the installed pydicom does not know."""
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
"""Elements that a derived object repeats."""
REFERRED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientOrientation"),
    *("Manufacturer", "ManufacturerModelName", "StationName", "InstitutionName"),
    *("InstitutionAddress", "InstitutionalDepartmentName", "DeviceSerialNumber"),
    *("SoftwareVersions", "DateOfLastCalibration", "TimeOfLastCalibration"),
)
"""Elements by which it refers to the image and the unit (PS3.3 C.7.6.16.2.6, C.12.1)."""
KEYWORDS = frozenset((*REPEATED, *REFERRED))

LONG = frozenset({"LT", "ST", "UT"})
"""Single-valued texts, which may contain backslashes and line breaks (PS3.5 6.2)."""
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})
MAX_BYTES = 48 << 10
"""Maximum total size of the repeated elements; the longest ones beyond it become None."""
MAX_DEPTH, MAX_ITEMS = 5, 64
MAX_CHARACTERS = 10240
"""Maximum characters of an element, equal to the largest limit in PS3.5 6.2."""

LOSSY: dict[str, str] = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Compression methods (PS3.3 C.7.6.1.1.5.1) of transfer syntaxes that are always lossy."""
PERHAPS_LOSSY: dict[str, str] = {JPEG2000: "ISO_15444_1", "1.2.840.10008.1.2.4.203": "ISO_15444_15"}
"""Methods of syntaxes that may be lossy, depending on the codestream: JPEG 2000 and HTJ2K."""
CODING_STYLE = b"\xff\x52"
WAVELET = 13
"""Offset of the wavelet in the marker segment (ISO 15444-1 A.6.1); 0 is the irreversible one."""


def read_repeated_header(dataset: Dataset) -> Header:
    """Read the elements that a derived object repeats or refers to."""
    header: Header = {}
    for keyword in (*REPEATED, *REFERRED):
        if keyword in dataset:
            header[keyword] = _content(dataset, keyword, 0)
    header |= _lossy(dataset)
    remaining = MAX_BYTES
    for keyword in sorted(header, key=lambda name: len(json.dumps(header[name]))):
        remaining -= len(json.dumps([keyword, header[keyword]]))
        if remaining < 0:
            header[keyword] = None
    return header


def _content(dataset: Dataset, keyword: str, depth: int) -> str | list[Header] | None:
    """Return an element's content; None if it cannot be parsed or exceeds a limit."""
    try:
        content = dataset[keyword].value
        if isinstance(content, Items):
            if depth == MAX_DEPTH or len(content) > MAX_ITEMS:
                return None
            return [_item(item, depth + 1) for item in content]
        if content is None:
            return ""
        if isinstance(content, bytes):
            return None
        is_multiple = isinstance(content, Sequence) and not isinstance(content, str)
        keep_blanks = dictionary_VR(keyword) in LONG
        values = [str(item) for item in (content if is_multiple else (content,))]
        joined = "\\".join(value if keep_blanks else value.strip() for value in values)
        return joined if len(joined) <= MAX_CHARACTERS else None
    except MemoryError:
        raise
    except Exception:  # pydicom parses on access and may raise anything
        return None


def _item(item: Dataset, depth: int) -> Header:
    """Read all public elements of an item that are texts, numbers or sequences."""
    keywords = (keyword_for_tag(tag) for tag in item.keys())
    kept = (keyword for keyword in keywords if keyword and dictionary_VR(keyword) not in BINARY)
    return {keyword: _content(item, keyword, depth) for keyword in kept}


def _lossy(dataset: Dataset) -> Header:
    """Return the lossy-compression attributes that follow from the encoding.

    Anonymisers and gateways often drop these attributes but keep the compressed pixels.
    """
    syntax = text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID")
    method = LOSSY.get(syntax)
    if method is None and syntax in PERHAPS_LOSSY and _is_irreversible(dataset):
        method = PERHAPS_LOSSY[syntax]
    if method is None:
        return {}
    lossy: Header = {"LossyImageCompression": "01"}
    if not text(dataset, "LossyImageCompressionMethod"):
        lossy["LossyImageCompressionMethod"] = method
    if not text(dataset, "LossyImageCompressionRatio") and (ratio := _ratio(dataset)):
        lossy["LossyImageCompressionRatio"] = f"{ratio:.4g}"
    return lossy


def _is_irreversible(dataset: Dataset) -> bool:
    """Return whether a JPEG 2000 codestream uses the irreversible wavelet."""
    encoded = _encoded(dataset)
    start = encoded.find(CODING_STYLE)
    return start >= 0 and encoded[start + WAVELET : start + WAVELET + 1] == b"\0"


def _encoded(dataset: Dataset) -> bytes:
    content = value(dataset, "PixelData")
    return content if isinstance(content, bytes) else b""


def _ratio(dataset: Dataset) -> float | None:
    """Return the compression ratio: uncompressed bytes over compressed bytes."""
    sizes = [numbers(dataset, name)[:1] for name in ("Rows", "Columns", "BitsStored")]
    encoded = len(_encoded(dataset))
    if not all(sizes) or not encoded:
        return None
    rows, columns, bits = (size[0] for size in sizes)
    return rows * columns * (-(-bits // 8)) / encoded

"""Which objects are asked for by DIMSE, and in which transfer syntaxes (PS3.4 B.5, PS3.5 10)."""

from __future__ import annotations

from typing import Any

from pydicom.uid import (
    JPEG2000,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import build_context, build_role
from pynetdicom.presentation import PresentationContext

from mamfed_client.archive.objects import KINDS

VERIFICATION = "1.2.840.10008.1.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
"""Study Root Query/Retrieve (PS3.4 C.6.2)."""

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
)
"""Transfer syntaxes that the intake reads."""
assert set(SYNTAXES) <= set(AllTransferSyntaxes)


def storage() -> list[PresentationContext]:
    """Return one context for each kind and syntax: an archive accepts one syntax in each."""
    return [build_context(kind, syntax) for kind in KINDS for syntax in SYNTAXES]


def accepted_storage() -> list[PresentationContext]:
    """Return what a listener accepts: each kind in all syntaxes, of which the sender chooses."""
    return [build_context(kind, list(SYNTAXES)) for kind in KINDS]


def retrieval() -> list[PresentationContext]:
    """Return the contexts of C-GET, by which the archive stores to this site (PS3.4 C.5.3)."""
    return [build_context(GET), *storage()]


def roles() -> list[Any]:
    """Return the roles of C-GET: this site is the one that stores."""
    return [build_role(kind, scp_role=True) for kind in KINDS]

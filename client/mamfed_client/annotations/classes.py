"""Decide which annotated regions are malignant findings; the same rule holds for all formats.

Formats name their regions in different ways: categories (COCO), attributes (VIA), segments (DICOM
SEG), layers (presentation states), names (INbreast), or pixel values. Differently named regions are
combined only if every name is known to denote a finding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from mamfed_client.imaging.rejections import FileRejected, Reason

BACKGROUND = frozenset({"0", "#000000"})
"""Pixel values that never mark anything."""
MAX_LISTED = 6


@dataclass(frozen=True, slots=True)
class MalignantClasses:
    """What the site declares malignant, if annotation files do not say it.

    Attributes:
        classes: Class names; if empty, the built-in vocabulary decides.
        values: Pixel values, such as ``2`` or ``#ff0000``; if empty, the only value besides 0.
    """

    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def or_else(self, other: MalignantClasses) -> MalignantClasses:
        """Return a copy whose empty fields are taken from ``other``."""
        return MalignantClasses(self.classes or other.classes, self.values or other.values)


class ClassMeaning(Enum):
    """What a class name means."""

    MALIGNANT = "malignant"
    FINDING = "finding"
    PLAIN = "plain"
    """No information: an empty name, or a tool's default name."""
    OTHER = "other"
    """Benign, anatomy, background, or not tissue."""
    UNKNOWN = "unknown"


_NOT_MALIGNANT = re.compile(
    r"\b(?:non?|not|nicht|without|ohne) ?(?:malig|cancer|carcinom|bösartig)"
)
_NO_FINDING = re.compile(r"^(?:no|without|ohne|non|sin|sans) ")
_BIRADS = re.compile(r"\b(?:bi ?rads|acr|category|birads) ?([0-6])[abc]?\b")
_MALIGNANT = re.compile(
    r"\bmalign\w*|cancer\w*|carcinom\w*|\b(?:idc|ilc|dcis|sarcoma|lymphoma|karzinom|krebs)\b"
    r"|bösartig\w*|maligne?\b"
)
_BENIGN = re.compile(
    r"\bbenign\w*|gutartig\w*|\b(?:normal|healthy|cysts?|fibroadenomas?|lipomas?|hamartomas?"
    r"|papillomas?|scars?|vascular|lymph|lymphknoten|node|nodes|lymphadenopathy|imln|iln)\b"
)
_FINDING = re.compile(
    r"\b(?:micro|makro|macro)?calc\w*|\bmikrokalk\w*|\bkalk\w*|\bmass(?:es)?\b|\bmasse\w*"
    r"|lesion\w*|läsion\w*|lesión\w*|lésion\w*|nodul\w*|tumou?r\w*|\bclusters?\b|distort\w*"
    r"|asymmetr\w*|assymetr\w*|e?spiculat\w*|herd\w*|\bfindings?\b|abnormal\w*|opacit\w*"
    r"|architectural|neoplasm\w*|suspicious"
)
_PLACES = re.compile(
    r"\b(?:background|bg|breasts?|brust|mama|skin|haut|nipples?|mamille|areola|pectoral\w*|muscles?"
    r"|chest|wall|axilla\w*|fibroglandular|gland\w*|dense|density|tissues?|parenchym\w*|fat|fatty"
    r"|adipose|vessels?|vein|artery|implants?|clips?|markers?|wires?|labels?|text|air|artifacts?"
    r"|artefacts?|foreground|void|ignore|unlabell?ed|others?)\b"
)
_PLAIN = re.compile(
    r"(?:layers?|draw(?:ing)?|annotations?|graphics?|overlays?|default|rois?|regions?|objects?"
    r"|contours?|outlines?|shapes?|polygons?|freehand|marks?|user|reader|radiologist|unnamed"
    r"|points?|image|segmentations?|segments?|masks?|interest|of|the|none|no name|[\W\d_])*"
)


def kind_of(name: str) -> ClassMeaning:
    """Interpret a class name, whatever its case and word separators.

    Benign takes precedence over malignant, because ``benign`` may qualify any finding; a finding
    takes precedence over a place, as in ``breast mass``.
    """
    words = _words(name)
    if _PLAIN.fullmatch(words) and not words.isdigit():
        return ClassMeaning.PLAIN
    category = _BIRADS.search(words)
    if _BENIGN.search(words) or _NOT_MALIGNANT.search(words) or _NO_FINDING.search(words):
        return ClassMeaning.OTHER
    if category is not None:
        return ClassMeaning.MALIGNANT if int(category[1]) >= 4 else ClassMeaning.OTHER
    if _MALIGNANT.search(words):
        return ClassMeaning.MALIGNANT
    if _FINDING.search(words):
        return ClassMeaning.FINDING
    return ClassMeaning.OTHER if _PLACES.search(words) else ClassMeaning.UNKNOWN


def is_unknown(name: str) -> bool:
    """Return whether a class name is not in the vocabulary."""
    return kind_of(name) is ClassMeaning.UNKNOWN


def choose_classes(
    names: Collection[str], declared: Collection[str], wanted: Collection[str]
) -> frozenset[str]:
    """Choose the malignant classes by name.

    If names distinguish malignant findings from others, only the malignant ones are chosen;
    otherwise all findings and unnamed regions are.

    Args:
        names: The classes of the image's regions.
        declared: All classes in the file, including those of other images.
        wanted: The classes that the site declares malignant; if empty, the vocabulary decides.

    Raises:
        FileRejected: One of several names is unknown (``UNKNOWN_CLASS``), or no region is of a
            malignant class (``EMPTY_MASK``).
    """
    if wanted:
        wanted_words = {_words(name) for name in wanted}
        return _not_empty({name for name in names if _words(name) in wanted_words}, names)
    kinds = {name: kind_of(name) for name in {*names, *declared}}
    unknown = {name for name in names if kinds[name] is ClassMeaning.UNKNOWN}
    distinct = {
        name for name, kind in kinds.items() if kind is not ClassMeaning.PLAIN or name in names
    }
    if unknown and len(distinct) > 1:
        raise FileRejected(
            Reason.UNKNOWN_CLASS, f"{_listed(unknown)}; name the malignant ones with --classes"
        )
    malignant = {name for name in names if kinds[name] is ClassMeaning.MALIGNANT}
    others = (ClassMeaning.FINDING, ClassMeaning.PLAIN, ClassMeaning.UNKNOWN)
    return _not_empty(malignant or {name for name in names if kinds[name] in others}, names)


def choose_values(names: Collection[str], wanted: Collection[str]) -> frozenset[str]:
    """Choose the malignant pixel values: those wanted, else the only one besides the background.

    Raises:
        FileRejected: There are several, or no background (``UNKNOWN_CLASS``), or none of the
            requested values (``EMPTY_MASK``).
    """
    if wanted:
        wanted_values = {name.strip().lower() for name in wanted}
        return _not_empty({name for name in names if name in wanted_values}, names)
    others = {name for name in names if name not in BACKGROUND}
    if len(names) > 1 and (len(others) > 1 or len(others) == len(names)):
        background = "" if len(others) < len(names) else " and no background 0"
        raise FileRejected(
            Reason.UNKNOWN_CLASS,
            f"pixels of {_listed(others)}{background}; "
            "name the malignant values with --mask-values",
        )
    return frozenset(others)


def _not_empty(chosen: Iterable[str], names: Collection[str]) -> frozenset[str]:
    result = frozenset(chosen)
    if names and not result:
        raise FileRejected(Reason.EMPTY_MASK, f"no malignant finding among {_listed(names)}")
    return result


def _words(name: str) -> str:
    """Split ``camelCase``, ``snake_case`` and the like into lower-case words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\W_]+", spaced.casefold())).strip()


def _listed(names: Iterable[str]) -> str:
    """List class names, masking any that may be a person's; a class is short, or a number."""
    shown = sorted({name if _is_class(name) else "another" for name in names}, key=_by_number)
    more = f" and {len(shown) - MAX_LISTED} more" if len(shown) > MAX_LISTED else ""
    return ", ".join(name or "no name" for name in shown[:MAX_LISTED]) + more


def _is_class(name: str) -> bool:
    known = kind_of(name) is not ClassMeaning.UNKNOWN
    plain = re.fullmatch(r"[a-z_-]{1,20}|#?[0-9a-f]{1,6}", name) is not None
    return len(name) <= 40 and (known or plain)


def _by_number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 1 << 30, name)

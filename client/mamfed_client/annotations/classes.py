"""Which regions of an annotation are malignant findings: the one rule for all formats.

A file names its regions in its own way: categories (COCO), attributes (VIA), segments (DICOM SEG),
layers (presentation states), names (INbreast), or values of pixels. Nobody unites what is named
differently unless each name is known to be a finding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from mamfed_client.imaging.rejections import FileRejected, Reason

BACKGROUND = frozenset({"0", "#000000"})
"""Values of pixels that no picture marks anything with."""
MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class MalignantClasses:
    """What the site says is malignant, where files do not.

    Attributes:
        classes: Names of classes; empty goes by the vocabulary.
        values: Values of pixels, as ``2`` or ``#ff0000``; empty takes the only one beside 0.
    """

    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def or_else(self, other: MalignantClasses) -> MalignantClasses:
        """Fill what this one leaves open."""
        return MalignantClasses(self.classes or other.classes, self.values or other.values)


class ClassMeaning(Enum):
    """What a class's name says."""

    MALIGNANT = "malignant"
    FINDING = "finding"
    PLAIN = "plain"
    """Nothing: no name, or one that any tool gives."""
    OTHER = "other"
    """Benign, anatomy, background, or what is no tissue."""
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
    """Read a class's name, in words of any case and joined anyhow.

    Benign weighs more than malignant, because ``benign`` may stand beside any name of a finding;
    a finding weighs more than a place, as in ``breast mass``.
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
    """Tell whether a name is a class's, but one that the vocabulary does not have."""
    return kind_of(name) is ClassMeaning.UNKNOWN


def taken_classes(
    names: Collection[str], declared: Collection[str], wanted: Collection[str]
) -> frozenset[str]:
    """Choose classes by name.

    Where names tell malignant findings from others, only these are taken; else all findings are,
    and regions without a name.

    Args:
        names: The classes of the image's regions.
        declared: All classes that the file uses, for other images too.
        wanted: The ones that the site asks for; empty goes by the vocabulary.

    Raises:
        FileRejected: A name is not known and stands beside others (``UNKNOWN_CLASS``), or no region
            is of a malignant finding's class (``EMPTY_MASK``).
    """
    if wanted:
        asked = {_words(name) for name in wanted}
        return _some({name for name in names if _words(name) in asked}, names)
    kinds = {name: kind_of(name) for name in {*names, *declared}}
    unknown = {name for name in names if kinds[name] is ClassMeaning.UNKNOWN}
    told_apart = {
        name for name, kind in kinds.items() if kind is not ClassMeaning.PLAIN or name in names
    }
    if unknown and len(told_apart) > 1:
        raise FileRejected(
            Reason.UNKNOWN_CLASS, f"{_listed(unknown)}; say which is malignant with --classes"
        )
    malignant = {name for name in names if kinds[name] is ClassMeaning.MALIGNANT}
    others = (ClassMeaning.FINDING, ClassMeaning.PLAIN, ClassMeaning.UNKNOWN)
    return _some(malignant or {name for name in names if kinds[name] in others}, names)


def taken_values(names: Collection[str], wanted: Collection[str]) -> frozenset[str]:
    """Choose values of pixels: those asked for, else the only one beside the background.

    Raises:
        FileRejected: There are several, or no background (``UNKNOWN_CLASS``), or none of the
            requested values (``EMPTY_MASK``).
    """
    if wanted:
        asked = {name.strip().lower() for name in wanted}
        return _some({name for name in names if name in asked}, names)
    others = {name for name in names if name not in BACKGROUND}
    if len(names) > 1 and (len(others) > 1 or len(others) == len(names)):
        background = "" if len(others) < len(names) else " and no background 0"
        raise FileRejected(
            Reason.UNKNOWN_CLASS,
            f"pixels of {_listed(others)}{background}; say which is malignant with --mask-values",
        )
    return frozenset(others)


def _some(taken: Iterable[str], names: Collection[str]) -> frozenset[str]:
    chosen = frozenset(taken)
    if names and not chosen:
        raise FileRejected(Reason.EMPTY_MASK, f"no malignant finding among {_listed(names)}")
    return chosen


def _words(name: str) -> str:
    """Part ``camelCase``, ``snake_case`` and the like into small words."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\W_]+", parted.casefold())).strip()


def _listed(names: Iterable[str]) -> str:
    """Quote names, but none that may be a person's: a class is a word or two, or a number."""
    shown = sorted({name if _is_class(name) else "another" for name in names}, key=_by_number)
    more = f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else ""
    return ", ".join(name or "no name" for name in shown[:MOST_NAMED]) + more


def _is_class(name: str) -> bool:
    known = kind_of(name) is not ClassMeaning.UNKNOWN
    plain = re.fullmatch(r"[a-z_-]{1,20}|#?[0-9a-f]{1,6}", name) is not None
    return len(name) <= 40 and (known or plain)


def _by_number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 1 << 30, name)

"""Find rows of the same patient, despite different spellings and mismatches of table and files.

Spreadsheets drop leading zeros or append ``.0`` in some rows; anonymisers number images; exports
name a patient differently from the table. Identifiers that may belong to one patient are treated
as one: they stay in one part of the split, and out of stage 1 if any of their rows is suspicious.
A wrong match costs little, whereas a missed match would test on training data. A table can prevent
a wrong match with ``patient_checked`` (docs/decisions/0038).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import NamedTuple

from mamfed_client.datasets.manifest import some_rows
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_common.runtime.text import plain

MAX_PATIENT_IMAGES = 40
"""Ten examinations of four views. A Patient ID in more files does not identify one patient."""

MIN_ROWS_NAMED_AFTER_FILES = 4
"""In fewer rows, patient and file names may be equal by chance."""

PLACEHOLDERS = frozenset(
    "anon anonym anonymous anonymized anonymised anonymizedpatient anonymouspatient deidentified"
    " de-identified removed unknown none null nan n/a na patient test testpatient noid noname"
    " xxx xxxx xxxxx xxxxxx 0 123 1234 12345 123456 1234567 12345678 123456789"
    " 999 9999 99999 999999 9999999 99999999".split()
)
"""Placeholders that anonymisers and forms leave in Patient ID, as :func:`canonical_id` returns."""

_EXCEL_TEXT = re.compile(r'="(.*)"')
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_WHOLE_NUMBER = re.compile(r"(\d+)[.,]0+")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def canonical_id(identifier: str) -> str:
    """Normalise an identifier so that all its spellings become equal.

    Full-width letters become narrow, capitals become lower case, blanks are removed and dashes
    unified. ``="007"`` and ``'007``, which spreadsheets use to keep text, become their content;
    ``.0`` after a whole number and leading zeros of any number are removed. ``007``, ``7`` and
    ``7.0`` are therefore equal, and so are ``P01`` and ``p 1``.
    """
    text = "".join(_DASHES.sub("-", plain(identifier)).split()).casefold()
    if quoted := _EXCEL_TEXT.fullmatch(text):
        text = quoted[1]
    text = text.removeprefix("'")
    if number := _WHOLE_NUMBER.fullmatch(text):
        text = number[1]
    return _LEADING_ZEROS.sub("", text)


def patient_key(secret: bytes, patient: str) -> str:
    """Return a pseudonym shared by all spellings of a patient; empty if there is no patient."""
    canonical = canonical_id(patient)
    return pseudonym(secret, "alike", canonical) if canonical else ""


class PatientMention(NamedTuple):
    """How a row and its file identify the patient.

    Attributes:
        row_number: The row.
        patient: The patient as written in the table, or a pseudonym of the file's patient if the
            table names none; empty if neither does.
        canonical: The patient's :func:`canonical_id`, possibly as a pseudonym; rows with equal
            values may show the same patient.
        by_file: The same for the file's own Patient ID; empty if unknown.
        checked: Whether the table confirms that its patient is as written and no other.
        in_table: Whether the table names the patient.
    """

    row_number: int
    patient: str
    canonical: str
    by_file: str = ""
    checked: bool = False
    in_table: bool = True


class JoinedPatients(NamedTuple):
    """Patients who are treated as one.

    Attributes:
        pairs: Pairs of identifiers that are treated as one patient.
        notes: Remarks for the user; they name rows, never patients.
    """

    pairs: list[tuple[str, str]]
    notes: tuple[str, ...] = ()


def spelled_alike(mentions: Sequence[PatientMention]) -> JoinedPatients:
    """Find patients whose identifiers are spellings of the same one."""
    checked = _checked(mentions)
    groups = _groups(mentions, lambda m: m.canonical if m.patient not in checked else "")
    several = [rows for rows in groups if _patients(rows) > 1]
    if not several:
        return JoinedPatients([])
    note = (
        f"patient_id has several spellings that are treated as one patient: rows {_some(several)}; "
        "use one spelling, or set patient_checked: yes where a spelling is another patient"
    )
    return JoinedPatients(_pairs(several), (note,))


def named_alike(
    mentions: Sequence[PatientMention], is_placeholder: Callable[[str], bool]
) -> JoinedPatients:
    """Find different patients of the table whose files carry the same Patient ID.

    A file's Patient ID is trusted unless it is an anonymiser's placeholder, or all files of the
    folder or more than ``MAX_PATIENT_IMAGES`` carry it.

    Args:
        mentions: How each row identifies its patient.
        is_placeholder: Tells whether ``by_file`` is an anonymiser's placeholder.
    """
    checked = _checked(mentions)
    comparable = [m for m in mentions if m.in_table and m.by_file and m.patient not in checked]
    groups = [rows for rows in _groups(comparable, lambda m: m.by_file) if _patients(rows) > 1]
    is_only_one = len({m.by_file for m in comparable}) == 1

    def trusted(rows: Sequence[PatientMention]) -> bool:
        too_many = len(rows) > MAX_PATIENT_IMAGES
        return not (is_only_one or too_many or is_placeholder(rows[0].by_file))

    several = [rows for rows in groups if trusted(rows)]
    notes = list(_file_notes(several, [rows for rows in groups if not trusted(rows)]))
    notes += _divided_note(comparable)
    return JoinedPatients(_pairs(several), tuple(notes))


def named_after_files(rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Warn if a table gives every image its own patient, which would divide real patients.

    Args:
        rows: Each row's patient in the table, and the path of its image.
    """
    named = [
        canonical_id(patient) == canonical_id(PurePosixPath(image).stem) for patient, image in rows
    ]
    if len(named) < MIN_ROWS_NAMED_AFTER_FILES or not all(named):
        return ()
    return (
        f"patient_id equals the image's file name in all {len(named)} rows; this is correct only "
        "if no patient has two images",
    )


def _file_notes(
    joined: Sequence[Sequence[PatientMention]], untrusted: Sequence[Sequence[PatientMention]]
) -> Iterator[str]:
    if joined:
        yield (
            "the table names different patients whose files carry the same Patient ID; they are "
            f"treated as one patient: rows {_some(joined)}; correct patient_id, or set "
            "patient_checked: yes where the table is right"
        )
    if untrusted:
        count = sum(len(rows) for rows in untrusted)
        yield (
            f"{count} files of different patients in the table carry the same Patient ID, probably "
            "a placeholder of an anonymiser; the table's patients are used"
        )


def _divided_note(mentions: Sequence[PatientMention]) -> list[str]:
    """Report rows whose file names another patient than the table does.

    This applies only if table and files mostly use the same identifiers: files with a separate
    pseudonym for each examination do not contradict the table.
    """
    same = sum(m.canonical == m.by_file for m in mentions)
    others = [m.row_number for m in mentions if m.canonical != m.by_file]
    if not others or same < len(others):
        return []
    return [
        f"rows {some_rows(others)}: the file's Patient ID differs from the table's, which is used; "
        "check that the row names the right file"
    ]


def _checked(mentions: Iterable[PatientMention]) -> set[str]:
    """Find patients whose rows are all marked as checked."""
    unchecked = {m.patient for m in mentions if not m.checked}
    return {m.patient for m in mentions} - unchecked


def _groups(
    mentions: Iterable[PatientMention], key: Callable[[PatientMention], str]
) -> list[list[PatientMention]]:
    groups: defaultdict[str, list[PatientMention]] = defaultdict(list)
    for mention in mentions:
        if mention.patient and (value := key(mention)):
            groups[value].append(mention)
    return list(groups.values())


def _patients(mentions: Iterable[PatientMention]) -> int:
    return len({mention.patient for mention in mentions})


def _pairs(groups: Iterable[Sequence[PatientMention]]) -> list[tuple[str, str]]:
    ordered = [list(dict.fromkeys(mention.patient for mention in rows)) for rows in groups]
    return [pair for patients in ordered for pair in pairwise(patients)]


def _some(groups: Sequence[Sequence[PatientMention]]) -> str:
    """List the rows of the first three groups, and count the other groups."""
    shown = " and ".join(some_rows(m.row_number for m in rows) for rows in groups[:3])
    more = f" (and {len(groups) - 3} more patients)" if len(groups) > 3 else ""
    return shown + more

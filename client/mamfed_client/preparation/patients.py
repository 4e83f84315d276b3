"""Who is one patient: identifiers compared as people mean them, the table held against the files.

Spreadsheets drop leading zeros or append ``.0`` in some rows; anonymisers number images; exports
name a patient otherwise than the table does. Whoever may be one patient is taken for one: kept in
one part of the split, and out of stage 1 where any of her rows is suspicious. That costs little
where it is wrong; two patients where there is one would test on what was trained on. A table says
where it is wrong by ``patient_checked`` (docs/decisions/0038).
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

MOST_IMAGES = 40
"""More than ten examinations of four views: whom so many files name is nobody in particular."""

FEWEST_NAMED = 4
"""Fewer patients may be called as their images by chance."""

PLACEHOLDERS = frozenset(
    "anon anonym anonymous anonymized anonymised anonymizedpatient anonymouspatient deidentified"
    " de-identified removed unknown none null nan n/a na patient test testpatient noid noname"
    " xxx xxxx xxxxx xxxxxx 0 123 1234 12345 123456 1234567 12345678 123456789"
    " 999 9999 99999 999999 9999999 99999999".split()
)
"""What anonymisers and forms leave in Patient ID, as :func:`canonical_id` spells it."""

_EXCEL_TEXT = re.compile(r'="(.*)"')
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_WHOLE_NUMBER = re.compile(r"(\d+)[.,]0+")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def canonical_id(identifier: str) -> str:
    """Spell an identifier so that spellings of one are equal.

    Full-width letters are narrow, capitals small, blanks gone, dashes alike; ``="007"`` and
    ``'007``, as spreadsheets keep text, are their content; a whole number has no ``.0``; and no
    number within has leading zeros: ``007``, ``7`` and ``7.0`` are one, and so are ``P01`` and
    ``p 1``.
    """
    text = "".join(_DASHES.sub("-", plain(identifier)).split()).casefold()
    if quoted := _EXCEL_TEXT.fullmatch(text):
        text = quoted[1]
    text = text.removeprefix("'")
    if number := _WHOLE_NUMBER.fullmatch(text):
        text = number[1]
    return _LEADING_ZEROS.sub("", text)


def patient_key(secret: bytes, patient: str) -> str:
    """Return a pseudonym that spellings of one patient share; empty where none is named."""
    spelled = canonical_id(patient)
    return pseudonym(secret, "alike", spelled) if spelled else ""


class PatientMention(NamedTuple):
    """What a row and its file say of whom the image shows.

    Attributes:
        row_number: The row.
        patient: The table's patient as written, or a pseudonym of the file's where no table names
            one; empty where nobody does.
        meant: What :func:`canonical_id` makes of it, perhaps as a pseudonym; equal ones may be one.
        by_file: Likewise of the file's own patient; empty where unknown.
        checked: Whether the table says that its patient is as written, and nobody else.
        in_table: Whether the table names the patient.
    """

    row_number: int
    patient: str
    meant: str
    by_file: str = ""
    checked: bool = False
    in_table: bool = True


class JoinedPatients(NamedTuple):
    """Patients who are taken for one.

    Attributes:
        pairs: Two of them each.
        notes: What a person should know, in sentences that name rows only.
    """

    pairs: list[tuple[str, str]]
    notes: tuple[str, ...] = ()


def spelled_alike(mentions: Sequence[PatientMention]) -> JoinedPatients:
    """Find patients whose identifiers are spellings of one."""
    checked = _checked(mentions)
    patient_key = _groups(mentions, lambda m: m.meant if m.patient not in checked else "")
    several = [rows for rows in patient_key if _patients(rows) > 1]
    if not several:
        return JoinedPatients([])
    note = (
        f"patients spelled in several ways are taken for one: rows {_some(several)}; spell them "
        "alike, or say patient_checked: yes where a spelling is another patient"
    )
    return JoinedPatients(_pairs(several), (note,))


def named_alike(
    mentions: Sequence[PatientMention], is_placeholder: Callable[[str], bool]
) -> JoinedPatients:
    """Find patients of the table whom the files know as one.

    A name of the files is believed unless it is an anonymiser's word, all files of the folder bear
    it, or more than ``MOST_IMAGES`` do.

    Args:
        mentions: What the rows say.
        is_placeholder: Tells an anonymiser's word by ``by_file``.
    """
    checked = _checked(mentions)
    said = [m for m in mentions if m.in_table and m.by_file and m.patient not in checked]
    groups = [rows for rows in _groups(said, lambda m: m.by_file) if _patients(rows) > 1]
    alone = len({m.by_file for m in said}) == 1

    def believed(rows: Sequence[PatientMention]) -> bool:
        return not (alone or len(rows) > MOST_IMAGES or is_placeholder(rows[0].by_file))

    several = [rows for rows in groups if believed(rows)]
    notes = list(_file_notes(several, [rows for rows in groups if not believed(rows)]))
    notes += _divided_note(said)
    return JoinedPatients(_pairs(several), tuple(notes))


def named_after_files(rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Say where a table's patients are its images: who has several would be divided.

    Args:
        rows: Each row's patient by the table, and its image's path.
    """
    named = [
        canonical_id(patient) == canonical_id(PurePosixPath(image).stem) for patient, image in rows
    ]
    if len(named) < FEWEST_NAMED or not all(named):
        return ()
    return (
        f"patient_id is the image's own name in all {len(named)} rows: right only if nobody has "
        "two images",
    )


def _file_notes(
    joined: Sequence[Sequence[PatientMention]], doubted: Sequence[Sequence[PatientMention]]
) -> Iterator[str]:
    if joined:
        yield (
            "patients whom the table tells apart and the files' own Patient ID does not are taken "
            f"for one: rows {_some(joined)}; mend patient_id, or say patient_checked: yes where "
            "the table is right"
        )
    if doubted:
        count = sum(len(rows) for rows in doubted)
        yield (
            f"{count} files of several of the table's patients bear one and the same Patient ID, "
            "as anonymisers leave it: the table's patients are used"
        )


def _divided_note(said: Sequence[PatientMention]) -> list[str]:
    """Tell of rows that the table calls one patient's and the files several patients'.

    Only where tables and files otherwise use the same identifiers: a pseudonym an examination is
    no contradiction.
    """
    same = sum(m.meant == m.by_file for m in said)
    others = [m.row_number for m in said if m.meant != m.by_file]
    if not others or same < len(others):
        return []
    return [
        f"rows {some_rows(others)}: the file's own Patient ID is another than the table's, which "
        "is used; look whether the row names the right file"
    ]


def _checked(mentions: Iterable[PatientMention]) -> set[str]:
    """Find patients all of whose rows say that they are as written."""
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
    """Name the rows of some groups, and count the other groups."""
    shown = " and ".join(some_rows(m.row_number for m in rows) for rows in groups[:3])
    more = f" (and {len(groups) - 3} more patients)" if len(groups) > 3 else ""
    return shown + more

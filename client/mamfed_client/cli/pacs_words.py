"""What ``mamfed-client pacs`` prints: counts in words, without identifiers."""

from __future__ import annotations

from typing import Any

from mamfed_common.runtime.wording import counted, printable, size

OUTCOMES = {
    "pulled": "pulled now",
    "before": "here from earlier calls",
    "other_modality": "of another modality although listed as MG, left out",
    "gone": "no longer in the archive",
    "refused": "not given by the archive",
    "unreadable": "not readable as DICOM, left out",
    "too_large": "too large, left out",
    "other_object": "another object than asked for, left out",
    "not_reached": "not reached",
}


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return what would be pulled."""
    found = f"{counted(plan['studies'], 'study', 'studies')}, {counted(plan['images'], 'image')}"
    return [f"would pull {found}", *_details(plan)]


def result_lines(document: dict[str, Any]) -> list[str]:
    """Return what became of every image, in one count each."""
    whole = {
        "complete": document["studies_complete"],
        "in part": document["studies_in_part"],
        "without an image": document["studies_without_image"],
    }
    studies = ", ".join(f"{count} {words}" for words, count in whole.items() if count)
    lines = [f"{counted(document['studies'], 'study', 'studies')}: {studies or 'none'}"]
    lines += [
        f"{counted(document['outcomes'][key], 'image')} {words}"
        for key, words in OUTCOMES.items()
        if document["outcomes"][key]
    ]
    reasons = document["reasons"].items()
    lines += [f"{count} not given: {printable(why)}" for why, count in reasons]
    if document["bytes"]:
        lines.append(f"{size(document['bytes'])} pulled")
    if document["labels"]:
        lines.append(f"labels: {document['labels']}")
    return [*lines, *_left_out(document)]


def sent_lines(sent: dict[str, Any]) -> list[str]:
    """Return what was sent, and a line for each file that was refused."""
    lines = [
        f"{sent['sent']} of {counted(sent['objects'], 'DICOM object')} sent now and confirmed by "
        f"the archive, {sent['sent_before']} before"
    ]
    lines += [f"not sent: {file}: refused: {why}" for file, why in sent["refusals"].items()]
    return [*lines, *([f"{sent['not_reached']} not reached"] if sent["not_reached"] else ())]


def _details(plan: dict[str, Any]) -> list[str]:
    """Describe the images by vendor and the studies by month, as the archive reports them."""
    vendors = [
        f"{printable(vendor)}: {counted(count, 'image')}"
        for vendor, count in plan["images_by_vendor"].items()
    ]
    months = [
        f"{month}: {counted(count, 'study', 'studies')}"
        for month, count in plan["studies_by_month"].items()
    ]
    return [*vendors, *months, *_left_out(plan)]


def _left_out(plan: dict[str, Any]) -> list[str]:
    lines = [
        f"{counted(count, 'other object')} in these studies, left out: {printable(kind)}"
        for kind, count in plan["other_objects"].items()
    ]
    if count := plan["worklist_rows_without_study"]:
        lines.append(f"{counted(count, 'row')} of the worklist without a study in the archive")
    return lines

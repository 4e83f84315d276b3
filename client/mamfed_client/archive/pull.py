"""``mamfed-client pacs pull``: fetch what a plan names, each object once.

Every image of the plan ends in exactly one count of ``Outcome``. What came is in the journal before
the next one is asked for, so a second call goes on where the first one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import sleep
from typing import Any

from mamfed_client.archive.objects import (
    MODALITY,
    Archive,
    ObjectGone,
    ObjectName,
    ObjectRefused,
    Unreachable,
)
from mamfed_client.archive.plan import PlannedImage, PullPlan
from mamfed_client.archive.pull_folder import PullFolder
from mamfed_client.archive.throttle import Throttle
from mamfed_client.archive.worklist import labels_of
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.errors import LinkError
from mamfed_common.runtime.terminal import Advance

MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
"""Digital Mammography X-Ray Image Storage, For Presentation; For Processing adds ``.1``."""
WAITS = (1.0, 4.0)
"""Seconds before an object is asked for again while the archive does not answer."""


class Outcome(StrEnum):
    """What became of an image of the plan."""

    PULLED = "pulled"
    BEFORE = "here before"
    OTHER_MODALITY = "of another modality, left out"
    GONE = "no longer in the archive"
    REFUSED = "not given by the archive"
    UNREADABLE = "not readable as DICOM, left out"
    TOO_LARGE = "too large, left out"
    OTHER_OBJECT = "another object than asked for, left out"
    NOT_REACHED = "not reached"


HERE = (Outcome.PULLED, Outcome.BEFORE)
TO_REPEAT = (Outcome.REFUSED, Outcome.NOT_REACHED)
"""Outcomes that a second call may change."""


@dataclass
class PullResult:
    """What a pull did.

    Attributes:
        outcomes: The outcome of each image, by SOP Instance UID; it never leaves memory.
        why: Reasons of refusals, with their counts.
        bytes: Size of what was pulled.
        stopped: What ended it early; None: nothing did.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    why: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    stopped: LinkError | None = None

    def to_json(self, plan: PullPlan) -> dict[str, Any]:
        """Return the result in counts, without identifiers."""
        counts = Counter(self.outcomes.values())
        per_study: dict[str, list[Outcome]] = {uid: [] for uid in plan.studies}
        for uid, outcome in self.outcomes.items():
            per_study[plan.images[uid].name.study].append(outcome)
        return {
            "outcomes": {outcome.name.lower(): counts[outcome] for outcome in Outcome},
            "reasons": dict(self.why),
            "bytes": self.bytes,
            "studies_complete": sum(_here(found) == len(found) > 0 for found in per_study.values()),
            "studies_in_part": sum(0 < _here(found) < len(found) for found in per_study.values()),
            "studies_without_image": sum(not _here(found) for found in per_study.values()),
        }

    def to_repeat(self) -> int:
        """Return the number of images that a second call may bring."""
        return sum(outcome in TO_REPEAT for outcome in self.outcomes.values())


def _here(outcomes: list[Outcome]) -> int:
    return sum(outcome in HERE for outcome in outcomes)


@dataclass
class Puller:
    """Pulls the images of a plan.

    Attributes:
        archive: Where from.
        folder: Where to.
        throttle: How fast, and when.
        decoder: The sandbox that reads each header.
        pause: Called with seconds to wait before trying again.
    """

    archive: Archive
    folder: PullFolder
    throttle: Throttle
    decoder: Decoder
    pause: Callable[[float], None] = sleep
    result: PullResult = field(default_factory=PullResult)

    def pull(self, plan: PullPlan, advance: Advance) -> PullResult:
        """Fetch all images that are not here yet; end early if the archive does not answer.

        Args:
            plan: What to pull.
            advance: Called after each image.

        Raises:
            OutputError: The folder cannot be written.
            MamfedError: The sandbox does not start.
        """
        result = self.result
        result.outcomes = dict.fromkeys(plan.images, Outcome.NOT_REACHED)
        for uid, image in plan.images.items():
            try:
                result.outcomes[uid] = self._known(image) or self._fetch(image)
            except LinkError as error:
                result.stopped = error
                break
            advance(1, int(result.outcomes[uid] not in HERE))
        return result

    def _known(self, image: PlannedImage) -> Outcome | None:
        """Return the outcome of an earlier call; None if there is none, or its file has gone."""
        name = image.name
        entry = self.folder.entries.get(self.folder.key(name.uid))
        target = self.folder.file(name.study, name.uid)
        if entry is not None and entry.get("outcome") == Outcome.OTHER_MODALITY.name:
            return Outcome.OTHER_MODALITY
        if not target.is_file():
            return None
        if entry is not None:
            is_whole = entry.get("bytes") == target.stat().st_size
            return Outcome.BEFORE if is_whole else None
        try:  # named, but a crash came before its entry
            identity = self.decoder.identity(target)
        except FileRejected:
            return None
        if identity["SOPInstanceUID"] != name.uid:
            return None
        self._note(image, identity, target.stat().st_size)
        return Outcome.BEFORE

    def _fetch(self, image: PlannedImage) -> Outcome:
        self.throttle.wait()
        try:
            data = self._patiently(image.name)
        except ObjectGone:
            return Outcome.GONE
        except ObjectRefused as error:
            self.result.why[str(error)] += 1
            return Outcome.REFUSED
        self.throttle.pulled(len(data))
        try:
            return self._keep(image, data)
        finally:
            self.folder.discard()

    def _patiently(self, name: ObjectName) -> bytes:
        for wait in WAITS:
            try:
                return self.archive.fetch(name)
            except Unreachable:
                self.pause(wait)
        return self.archive.fetch(name)

    def _keep(self, image: PlannedImage, data: bytes) -> Outcome:
        """Read the header in the sandbox; give the image its name if it is what was asked for."""
        try:
            identity = self.decoder.identity(self.folder.receive(data))
        except FileRejected as error:
            too_large = error.reason is Reason.TOO_LARGE
            return Outcome.TOO_LARGE if too_large else Outcome.UNREADABLE
        if identity["SOPInstanceUID"] != image.name.uid:
            return Outcome.OTHER_OBJECT
        if not _is_mammogram(identity):
            self.folder.note(image.name.uid, outcome=Outcome.OTHER_MODALITY.name)
            return Outcome.OTHER_MODALITY
        self.folder.accept(self.folder.file(image.name.study, image.name.uid))
        self._note(image, identity, len(data))
        self.result.bytes += len(data)
        return Outcome.PULLED

    def _note(self, image: PlannedImage, identity: dict[str, str], size: int) -> None:
        side = (identity["ImageLaterality"] or identity["Laterality"])[:1]
        self.folder.note(
            image.name.uid,
            outcome=Outcome.PULLED.name,
            bytes=size,
            laterality=side if side in ("L", "R") else "",
            patient=self.folder.patient(image.patient, image.name.study),
        )


def _is_mammogram(identity: dict[str, str]) -> bool:
    """Return whether an object is a mammogram; exports may lack the modality, not the class."""
    modality, sop_class = identity["Modality"], identity["SOPClassUID"]
    return modality == MODALITY or (not modality and sop_class.startswith(MAMMOGRAPHY))


def write_labels(folder: PullFolder, plan: PullPlan, columns: tuple[str, ...]) -> str:
    """Write the worklist's labels for all images that are here; return the file's name.

    Images of earlier pulls with other worklists keep no labels.

    Raises:
        OutputError: The table cannot be written.
    """
    wanted = tuple(dict.fromkeys(("pathology", "birads", *columns)))
    rows = []
    for uid, image in plan.images.items():
        entry = folder.entries.get(folder.key(uid), {})
        file = folder.file(image.name.study, uid)
        if entry.get("outcome") != Outcome.PULLED.name or not file.is_file():
            continue
        labels = labels_of(plan.rows.get(image.name.study, ()), entry["laterality"])
        cells = [labels[name] for name in wanted]
        rows.append([file.relative_to(folder.path).as_posix(), entry["patient"], *cells])
    return folder.write_table(("image", "patient_id", *wanted), rows).name if rows else ""

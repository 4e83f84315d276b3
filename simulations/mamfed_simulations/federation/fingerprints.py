"""Record what each arm of a comparison depends on, so that unlike arms are never mixed.

``arms.json`` holds one fingerprint per arm folder. It is written before an arm starts, so that a
killed arm resumes only with the same data, plan and options.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.disclosure.evaluation_question import site_sha256
from mamfed_client.preparation.site_data import load_site
from mamfed_common import __version__
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import STATE_BYTES, read_values
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.training.device import choose_device
from mamfed_server.run.resume import check_same_plan
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.arms import Arm
from mamfed_simulations.federation.hardware import ArmHardware

ARMS = "arms.json"
ADVICE = "choose another --out, use the same options, or remove that folder"


def fingerprint_of(arm: Arm, machine: ArmHardware) -> Fingerprint:
    """Return the fingerprint of everything that an arm's weights depend on."""
    job = arm.job
    return Fingerprint.of(
        mamfed_version=__version__,
        arm=arm.name,
        plan_sha256=job.plan.sha256(),
        data={site.name: site_sha256(load_site(site, job.plan)) for site in arm.sites},
        training_sites=_names(job.training_sites),
        validation_sites=_names(job.validation_sites),
        test_sites=_names(job.test_sites),
        device=choose_device(machine.device).type,
        threads=machine.threads,
    )


class RecordedFingerprints(NamedTuple):
    """The fingerprints of the arms in a folder.

    Attributes:
        notes: Lines for the user: how many arms are done, and which cannot be checked.
        questions: The parts of each arm's fingerprint, by arm folder.
    """

    notes: list[str]
    questions: dict[str, Any]

    def write(self, out: Path) -> None:
        """Write the fingerprints to ``arms.json`` in ``out``."""
        write_atomic(out / ARMS, json.dumps(self.questions, indent=2) + "\n")


def check_fingerprints(
    out: Path, arms: Sequence[Arm], machine: ArmHardware
) -> RecordedFingerprints:
    """Check that arms already started match the current request. Write nothing.

    Raises:
        OutputError: An arm was started with other data, options or code; the message names them.
        PlanError: An arm was started with another plan.
    """
    known = _read(out / ARMS)
    questions = _questions(out, arms, machine)
    notes, done = [], 0
    for arm in arms:
        place, folder = _place(out, arm), RunFolder(arm.job.folder)
        if not folder.holds_run():
            continue
        check_same_plan(folder, arm.job.plan, ADVICE)
        done += folder.is_finished()
        if place in known:
            where = f"{folder.path}: was started with other inputs"
            questions[place].check(known[place], where, ADVICE)
        else:
            notes.append(
                f"{place}: started by an older mamfed that did not record its data; only its plan "
                "is known to match"
            )
    if done:
        notes.append(
            f"{done} of {len(arms)} arms already done, with the same data, plan and options"
        )
    return RecordedFingerprints(
        notes, known | {place: question.parts for place, question in questions.items()}
    )


def start_with_fingerprints(
    out: Path, arms: Sequence[Arm], machine: ArmHardware
) -> RecordedFingerprints:
    """Return the fingerprints of arms in a folder in which nothing has started."""
    questions = _questions(out, arms, machine)
    return RecordedFingerprints(
        [], {place: dict(question.parts) for place, question in questions.items()}
    )


def _questions(out: Path, arms: Sequence[Arm], machine: ArmHardware) -> dict[str, Fingerprint]:
    return {_place(out, arm): fingerprint_of(arm, machine) for arm in arms}


def _place(out: Path, arm: Arm) -> str:
    return str(arm.job.folder.relative_to(out))


def _names(sites: frozenset[str] | None) -> list[str] | None:
    return None if sites is None else sorted(sites)


def _read(path: Path) -> dict[str, Any]:
    """Return the arms' fingerprints by folder; empty if there is no file."""
    try:
        fingerprints = read_values(path, STATE_BYTES) if path.exists() else {}
        if not isinstance(fingerprints, dict):
            raise ValueError
    except (OSError, ValueError):
        raise OutputError(f"{path}: damaged; choose another --out, or remove it") from None
    return fingerprints

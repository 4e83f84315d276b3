"""What each arm of a comparison depends on, kept beside the arms: none is mixed with another's.

``arms.json`` holds a fingerprint an arm's folder. It is written before an arm begins, so that one
that was killed goes on for the same data alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mamfed_client.question import site_sha256
from mamfed_client.site import load_site
from mamfed_common import __version__
from mamfed_common.device import choose_device
from mamfed_common.errors import OutputError
from mamfed_common.files import write_atomic
from mamfed_common.fingerprint import Fingerprint
from mamfed_server.resume import check_same_plan
from mamfed_server.runs import RunFolder
from mamfed_simulations.arms import Arm
from mamfed_simulations.workers import Machine

ARMS = "arms.json"


def question_of(arm: Arm, machine: Machine) -> Fingerprint:
    """Name all that an arm's weights depend on."""
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


def hold_to_questions(out: Path, arms: Sequence[Arm], machine: Machine) -> list[str]:
    """Refuse arms that were begun for another question; note the question of all others.

    Returns:
        What to say: how many arms are done before, and which cannot be checked.

    Raises:
        OutputError: An arm here is of other data, options or code; what differs is named.
        PlanError: One is of another plan.
    """
    known = _read(out / ARMS)
    questions = {_place(out, arm): question_of(arm, machine) for arm in arms}
    notes, done = [], 0
    for arm in arms:
        place, folder = _place(out, arm), RunFolder(arm.job.folder)
        if not folder.holds_run():
            continue
        check_same_plan(folder, arm.job.plan)
        done += folder.is_finished()
        if place in known:
            advice = "choose another --out, give the same options, or remove that folder"
            where = f"{folder.path}: holds an arm of another comparison"
            questions[place].check(known[place], where, advice)
        else:
            notes.append(
                f"{place}: begun by an older mamfed that did not note its data; only its plan is "
                "known to be the same"
            )
    if done:
        notes.append(f"{done} of {len(arms)} arms done before, of the same data, plan and options")
    content = known | {place: question.parts for place, question in questions.items()}
    write_atomic(out / ARMS, json.dumps(content, indent=2) + "\n")
    return notes


def _place(out: Path, arm: Arm) -> str:
    return str(arm.job.folder.relative_to(out))


def _names(sites: frozenset[str] | None) -> list[str] | None:
    return None if sites is None else sorted(sites)


def _read(path: Path) -> dict[str, Any]:
    """Return the arms' fingerprints by folder; none where there is no file."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
        if not isinstance(found, dict):
            raise ValueError
    except (OSError, ValueError):
        raise OutputError(f"{path}: damaged; choose another --out, or remove it") from None
    return found

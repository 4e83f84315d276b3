"""Everything that writes what must survive a full disk, and how it is read back."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import sound_files

from mamfed_client.disclosure.audit_log import AuditLog, read_record
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.preparation.journal import Journal
from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.model.checked_file import FileFacts, read_checked, write_checked
from mamfed_common.model.state_dict import state_sha256
from mamfed_server.admission.registry import load_sites, save_site
from mamfed_server.run_folder.event_log import EventLog, read_events
from mamfed_server.run_folder.folder import LATEST, RunFolder


class Writer(NamedTuple):
    """Something that writes: ``write`` changes what ``read`` returns, or raises, or is False.

    Where ``is_log``, a write that raises may have appended to it.
    """

    name: str
    write: Callable[[], Any]
    read: Callable[[], Any]
    is_log: bool = False


def writers(material, disk):
    """Return all writers, which write below a disk."""
    numbers = itertools.count(1)
    checkpoints = {n: sound_files.new_checkpoint(n) for n in (1, 2)}

    def checkpoint():
        return checkpoints[1 if shown() == state_sha256(checkpoints[2].state) else 2]

    def shown():
        return state_sha256(load_checkpoint(path).state)

    run = RunFolder(disk / "run")
    run.create(sound_files.PLAN)
    path = run.checkpoint_path(LATEST)
    save_checkpoint(path, checkpoints[1])
    yield Writer("checkpoint", lambda: save_checkpoint(path, checkpoint()), shown)
    yield Writer(
        "advance of a run",
        lambda: run.save_latest(checkpoint()),
        lambda: state_sha256(load_checkpoint(path).state),
    )
    log = EventLog()
    log.open(run.path)
    log.write("start", n=0)
    yield Writer("events", lambda: log.write("round", n="x" * 5000), lambda: read_events(run.path))
    (entry,) = load_sites(material.server).values()

    def contact():
        save_site(material.server, entry.model_copy(update={"contact": f"+{next(numbers)}"}))

    yield Writer("registry", contact, lambda: load_sites(material.server))
    audit = material.site.path / "audit.jsonl"
    values = {"loss": 0.5, "note": "x" * 5000}
    yield Writer(
        "audit log",
        lambda: AuditLog(audit).append("train", values=values),
        lambda: [e.sha256 for e in read_record(audit).entries if e.kind != "torn"],
        is_log=True,
    )
    store = PlanStore(material.site.path / "plans")
    digest = sound_files.PLAN.sha256()
    yield Writer("decisions", lambda: store.decide(digest, "approved"), store.history)
    journal = disk / "journal.jsonl"

    def outcomes():
        found = Journal(journal)
        return [found.find(f"{n}", [1]) for n in range(1, 1000)]

    yield Writer(
        "journal of a preparation",
        lambda: Journal(journal).add(f"{next(numbers)}", [1], {"reason": "x" * 5000}),
        outcomes,
    )
    progress = disk / "round.safetensors"
    write_checked(progress, FileFacts(what="x"), checkpoints[1].state)
    states = itertools.cycle([checkpoints[2].state, checkpoints[1].state])

    def kept():
        found = read_checked(progress, "x", FileFacts)
        return found and state_sha256(found[1])

    def keep():
        state = next(states)
        if state_sha256(state) == kept():
            state = next(states)
        return write_checked(progress, FileFacts(what="x"), state)

    yield Writer("a round in progress", keep, kept)

"""Every kind of file that mamfed keeps, and how its reader tells that it is damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sound_files

from mamfed_client.disclosure.audit_log import AuditLog, read_record
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.prepared_folder import remembered_parts
from mamfed_client.site.identity import check_own, load_node_key, load_tls_key, load_welcome
from mamfed_client.training.fedbn import LocalNorms
from mamfed_common.checkpoint import load_checkpoint, save_checkpoint
from mamfed_common.errors import MamfedError
from mamfed_common.model.checked_file import FileFacts, read_checked, write_checked
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import Stage
from mamfed_common.security.enrolment import read_request
from mamfed_common.security.keys import spki
from mamfed_server.admission.certificate_authority import load_authority, load_plan_key
from mamfed_server.admission.registry import load_sites
from mamfed_server.run.resume import reopen
from mamfed_server.run_folder.folder import LATEST, NEXT, PREVIOUS, RunFolder
from mamfed_server.strategy.server_optimizer import ServerOptimizer


class Kept(NamedTuple):
    """A file, and how it is read.

    Attributes:
        name: Its kind.
        path: The file.
        read: Returns what it holds, in a form that can be compared; raises or returns something
            else if it is damaged, see ``falls_back``.
        falls_back: Whether a damaged file is answered by what was kept before it, or by doing the
            work again, instead of by an error: what ``read`` then returns.
        names: Whether the error names the file.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    falls_back: Any = None
    names: bool = True


def kept_files(material, folder):
    """Return all kinds, written below ``folder``."""
    return [
        *_run(folder),
        *_site_training(folder),
        *_cache(folder),
        *_audit(material),
        *_identities(material),
    ]


def _run(folder):
    run = RunFolder(folder / "run")
    run.create(sound_files.PLAN)
    first, second = (sound_files.new_checkpoint(number) for number in (1, 2))
    save_checkpoint(run.checkpoint_path(PREVIOUS), first)
    save_checkpoint(run.checkpoint_path(LATEST), second)
    latest = run.checkpoint_path(LATEST)

    def resumed():
        copy = folder / "resumed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run.path, copy)
        point = reopen(RunFolder(copy), sound_files.PLAN)
        assert not RunFolder(copy).checkpoint_path(NEXT).exists()
        if point.done == 1 + 1:  # stage 1 has one round, so round 1 of stage 2 is the second
            assert any(latest.name in note for note in point.notes), "not named"
        return point.done

    yield Kept("latest checkpoint: one back", latest, resumed, falls_back=2)

    def loaded():
        found = load_checkpoint(latest)
        return found.facts, state_sha256(found.state)

    yield Kept("checkpoint", latest, loaded)
    yield from _optimizer(folder)


def _optimizer(folder):
    plan = sound_files.PLAN.changed(
        federation={"server_optimiser": "adam", "server_learning_rate": 0.01}
    )
    place, warnings = folder / "optimizer", []
    place.mkdir(mode=0o700)
    optimizer = ServerOptimizer(plan, place, warnings.append)
    start = sound_files.new_checkpoint(1).state
    mean = sound_files.new_checkpoint(2).state
    after = optimizer.step(start, mean, (Stage.FINETUNING, 1))
    (path,) = place.glob("*.safetensors")

    def stepped():
        warnings.clear()
        found = state_sha256(optimizer.step(after, mean, (Stage.FINETUNING, 2)))
        for other in set(place.glob("*.safetensors")) - {path}:
            other.unlink()
        return "warned" if warnings and path.name in warnings[0] else found

    yield Kept("optimizer's state", path, stepped, falls_back="warned")


def _site_training(folder):
    plan, state = sound_files.PLAN, sound_files.new_checkpoint(1).state
    other = sound_files.new_checkpoint(2).state
    norms = LocalNorms(folder / "norms", plan)
    norms.keep(state, Stage.FINETUNING, 1)
    norms.keep(other, Stage.FINETUNING, 2)
    path = next((folder / "norms").rglob("0002.safetensors"))

    def scored():
        return state_sha256(norms.to_score(state, Stage.FINETUNING, 2))

    yield Kept("FedBN's norms: one back", path, scored, falls_back=state_sha256(state))
    checked = folder / "round.safetensors"
    write_checked(checked, FileFacts(what="x"), state)

    def progress():
        found = read_checked(checked, "x", FileFacts)
        return None if found is None else (found[0], state_sha256(found[1]))

    yield Kept("a round in progress", checked, progress, falls_back="none")


def _cache(folder):
    for name, key in (("sample", None), ("encrypted sample", b"k" * 32)):
        store = sound_files.add_sample(folder / name, key)
        path = next(path for path in (folder / name).rglob("*") if path.is_file())

        def sample(store=store):
            found = store.find(sound_files.DIGEST)
            if found is None:
                return None
            image, breast, mask, _ = found.load("")
            return image.tobytes(), breast.tobytes(), mask.tobytes(), found.transform()

        yield Kept(name, path, sample, falls_back="none")
    journal = folder / "journal.jsonl"
    for key in ("a", "b"):
        Journal(journal).add(key, [1, 2], {"spacing": 0.07, "reason": key})
    expected = [{"spacing": 0.07, "reason": key} for key in "ab"]

    def outcomes():
        found = Journal(journal)
        read = [found.find(key, [1, 2]) for key in "ab"]
        sound = all(one in (None, whole) for one, whole in zip(read, expected, strict=True))
        return read if None not in read else ("again" if sound else "wrong")

    yield Kept("journal of a preparation", journal, outcomes, falls_back="again")
    prepared = folder / "prepared"
    prepared.mkdir(mode=0o700)
    patients = frozenset(f"{n:032x}" for n in range(4))

    def split():
        return remembered_parts(prepared, "k", patients, lambda new: dict.fromkeys(new, "train"))

    split()
    yield Kept("split of patients", prepared / "splits.json", split)


def _audit(material):
    path = material.site.path / "audit.jsonl"

    def entries():
        found = [entry.sha256 for entry in read_record(path).entries]
        copy = path.with_name("copy.jsonl")
        shutil.copy(path, copy)
        shutil.copy(path.with_suffix(".head"), copy.with_suffix(".head"))
        try:
            AuditLog(copy).append("train")
        except MamfedError as error:
            raise type(error)(str(error).replace("copy.", "audit.")) from None
        return found

    yield Kept("audit log", path, entries)
    yield Kept("audit head", path.with_suffix(".head"), entries)


def _identities(material):
    server, site = material.server, material.site

    def node():
        return spki(load_node_key(site).public_key())

    def tls():
        key = load_tls_key(site)
        check_own(site, load_welcome(site), "north")
        return spki(key.public_key())

    def plan_key():
        return spki(load_plan_key(server).public_key())

    def authority():
        return load_authority(server).fingerprint(load_authority(server).signature_hash_algorithm)

    def welcome():
        found = load_welcome(site)
        check_own(site, found, "north")
        return (found.fingerprint(), found.site_certificate())

    yield Kept("node's key", site.node_key, node)
    yield Kept("TLS key", site.tls_key, tls)
    yield Kept("plan key", server.plan_key, plan_key)
    yield Kept("registry", server.sites / "north.json", lambda: load_sites(server))
    store = PlanStore(site.path / "plans")
    decisions = site.path / "plans" / "decisions.jsonl"
    yield Kept("decisions", decisions, store.history)
    (plan,) = (site.path / "plans").glob("*.yaml")

    def stored():
        return [p.plan for p in store.plans()] or "refused" if not store.unusable() else "refused"

    yield Kept("stored plan", plan, stored, falls_back="refused")
    yield Kept("request", site.request, lambda: read_request(site.request).fingerprint())

"""Every parser of mamfed's own: what it reads, and its documented errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sound_files
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors.torch import save

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets import read_folder
from mamfed_client.disclosure.audit_log import AuditError, read_record
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.imaging.rejections import FileRejected
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.prepared_folder import load_intake
from mamfed_client.sandbox.protocol import ProtocolError, check_mammogram, check_mask, parse_answer
from mamfed_client.site.identity import load_node_key, load_tls_key
from mamfed_client.site.settings import SiteSettings
from mamfed_client.tables.csv_table import read_table
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import (
    CheckpointError,
    DataError,
    OutputError,
    PlanError,
    SetupError,
    WeightsError,
)
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import read_plan
from mamfed_common.protocol.messages import ARRAYS, BODY, JSON, SAFETENSORS, WEIGHTS, unpack_body
from mamfed_common.protocol.tasks import (
    EvaluateTask,
    Query,
    SiteDescription,
    TrainReport,
    TrainTask,
)
from mamfed_common.runtime.documents import read_yaml
from mamfed_common.runtime.file_kinds import kind_of
from mamfed_common.security.certificates import read_certificate
from mamfed_common.security.enrolment import (
    check_request,
    check_welcome,
    read_request,
    read_welcome,
)
from mamfed_common.security.keys import new_ec_key, read_key
from mamfed_server.admission.registry import load_sites
from mamfed_server.aggregation.validation import read_description, read_update
from mamfed_server.report.data import read_notes
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service.status_file import read_status_file
from mamfed_server.settings import ServerSettings


class Target(NamedTuple):
    """A parser.

    Attributes:
        name: Its name.
        read: Reads bytes.
        errors: Its documented errors.
        sound: Bytes that it accepts.
    """

    name: str
    read: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    sound: bytes


def targets(material, folder):
    """Return all parsers; files are written below ``folder``."""
    return [
        *_documents(material, folder),
        *_tables(folder),
        *_annotations(folder),
        *_states(material, folder),
        *_wire(material),
    ]


def _file(folder, name, read):
    """Return a reader of bytes that writes them to a file first."""
    path = folder / "fuzzed" / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def reader(data):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)

    return reader


def _documents(material, folder):
    site, server = material.site, material.server
    tls, node = load_tls_key(site).public_key(), load_node_key(site).public_key()

    def welcome(path):
        check_welcome(read_welcome(path), tls, node)

    def own_key(path):
        return read_key(path, type(new_ec_key()))

    def yaml_of(model):
        return lambda path: read_yaml(model, path)

    plan = sound_files.PLAN
    setup = [
        ("site.yaml", yaml_of(SiteSettings), site.settings_path),
        ("server.yaml", yaml_of(ServerSettings), server.settings_path),
        ("request", lambda path: check_request(read_request(path)), site.request),
        ("welcome", welcome, site.welcome),
        ("key", own_key, site.tls_key),
        ("certificate", read_certificate, site.certificate),
    ]
    for name, read, path in setup:
        yield Target(name, _file(folder, Path(path).name, read), (SetupError,), path.read_bytes())
    text = plan.to_yaml().encode()
    yield Target("plan", _file(folder, "plan.yaml", read_plan), (PlanError,), text)
    as_json = plan.model_dump_json().encode()
    yield Target("plan as JSON", _file(folder, "plan.json", read_plan), (PlanError,), as_json)
    yield Target("kind of a file", _file(folder, "any", kind_of), (), text)
    sound = material.checkpoint.read_bytes()
    read = _file(folder, "best.safetensors", load_checkpoint)
    yield Target("checkpoint", read, (CheckpointError,), sound)


def _tables(folder):
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for name in ("a.dcm", "b.dcm"):
        (data / name).write_bytes(b"x")
    table = sound_files.TABLE.encode()
    yield Target("table", _file(folder, "table.csv", read_table), (DataError,), table)

    def dataset(content):
        (data / "labels.csv").write_bytes(content)
        return read_folder(data)

    yield Target("labels.csv of a data set", dataset, (DataError,), table)


def _annotations(folder):
    place = folder / "annotations"
    place.mkdir(exist_ok=True)
    for path in sound_files.annotations(place):

        def read(found):
            return read_annotations([Annotation(found, "a.dcm", instance="1.2.3")], 32, 32)

        yield Target(
            f"annotation {path.name}",
            _file(folder, path.name, read),
            (FileRejected,),
            path.read_bytes(),
        )


def _states(material, folder):
    run = RunFolder(folder / "fuzzed")
    audit, plans = material.site.path / "audit.jsonl", material.site.path / "plans"

    def record(path):
        head = audit.with_suffix(".head").read_bytes()
        path.with_suffix(".head").write_bytes(head)
        return read_record(path)

    def registry(path):
        class Home:
            sites = path.parent

        return load_sites(Home)

    def prepared(path):
        return load_intake(path.parent)

    entry = {"key": "a", "stat": [1], "outcome": {"reason": "x"}}
    status = {"status": "finished", "rounds": 1}
    sites = folder / "sites"
    yield Target(
        "audit log", _file(folder, "audit.jsonl", record), (AuditError,), audit.read_bytes()
    )
    head = audit.with_suffix(".head").read_bytes()
    (folder / "head").mkdir(exist_ok=True)
    (folder / "head" / "fuzzed").mkdir(exist_ok=True)
    (folder / "head" / "fuzzed" / "audit.jsonl").write_bytes(audit.read_bytes())

    def by_head(path):
        return read_record(path.with_suffix(".jsonl"))

    yield Target("audit head", _file(folder / "head", "audit.head", by_head), (AuditError,), head)
    sound = (material.server.sites / "north.json").read_bytes()
    yield Target("registry", _file(sites, "north.json", registry), (SetupError,), sound)

    def decisions(path):
        return PlanStore(path.parent).history()

    sound = (plans / "decisions.jsonl").read_bytes()
    place = folder / "plans"
    yield Target("decisions", _file(place, "decisions.jsonl", decisions), (SetupError,), sound)
    (name,) = (path.name for path in plans.glob("*.yaml"))

    def stored(path):
        store = PlanStore(path.parent)
        return store.plans(), store.unusable()

    yield Target("stored plan", _file(place, name, stored), (), (plans / name).read_bytes())
    line = json.dumps(entry).encode() + b"\n"
    yield Target("journal", _file(folder, "journal.jsonl", Journal), (OutputError,), line)
    manifest = json.dumps(dict.fromkeys(("format", "prepare_version", "cases"), 1)).encode()
    read = _file(folder / "prepared", "manifest.json", prepared)
    yield Target("prepared folder", _accepting(read, DataError, manifest), (DataError,), manifest)
    for name, what in (
        ("summary.json", lambda path: run.read_summary()),
        ("rounds.jsonl", lambda path: run.rounds()),
        ("events.jsonl", lambda path: read_events(path.parent)),
        ("report.json", lambda path: read_notes(path.parent)),
        ("status.json", lambda path: read_status_file(path.parent)),
    ):
        sound = b"{}" if name == "report.json" else json.dumps(status).encode() + b"\n"
        yield Target(name, _file(folder, name, what), (DataError,), sound)


def _accepting(read, error, sound):
    """Return a reader that may refuse even its own first bytes, which are only a beginning."""

    def reader(data):
        try:
            return read(data)
        except error:
            if data == sound:
                return None
            raise

    return reader


def _wire(material):
    start = state_of(
        sound_files.build_network(sound_files.PLAN.network, 0)
    )  # what a round started from
    description = SiteDescription(
        site="north",
        images={"malignant": {"train": 3}},
        patients={"malignant": {"train": 3}},
        rows=3,
        rejected={"no patient": 1},
        left_out={},
        vendors={"Siemens": 3},
    )
    report = TrainReport(num_examples={"malignant": 3}, loss=0.5)
    plan = sound_files.PLAN
    score = SiteScore(
        images=1,
        dice=0.5,
        lesions=1,
        lesions_found=1,
        images_without_malignancy=0,
        false_positive_pixels=None,
    )
    task = TrainTask(plan=plan, stage="finetuning", server_round=1)
    asked = EvaluateTask(plan=plan, part="val", stage="finetuning", server_round=1)
    bodies = {
        "wire query": (Query, Query(plan=plan)),
        "wire train task": (TrainTask, task),
        "wire evaluate task": (EvaluateTask, asked),
        "wire report": (TrainReport, report),
        "wire score": (SiteScore, score),
    }

    def body(kind):
        return lambda data: unpack_body(_content(data), kind)

    for name, (kind, sound) in bodies.items():
        yield Target(name, body(kind), (WeightsError,), sound.model_dump_json().encode())
    text = description.model_dump_json().encode()
    yield Target("wire description", _description, (WeightsError,), text)

    def update(data):
        content = _content(report.model_dump_json().encode())
        content[ARRAYS] = ArrayRecord({WEIGHTS: Array("uint8", (len(data),), SAFETENSORS, data)})
        return read_update(content, start, {"malignant": 3})

    yield Target("wire weights", update, (WeightsError,), save(start))
    rejected = json.dumps({"refused": ["unreadable image", "x"]}).encode()
    facts = json.dumps({"rows": 1, "columns": 1, "padded": False, "facts": {}}).encode()
    errors = (ProtocolError, FileRejected)
    for name, check in (("mammogram", check_mammogram), ("mask", check_mask)):

        def answer(data, check=check):
            return check(parse_answer(data))

        read = _accepting(_accepting(answer, FileRejected, rejected), ProtocolError, facts)
        yield Target(f"sandbox's {name}", read, errors, facts)


def _content(data):
    return RecordDict({BODY: ConfigRecord({JSON: data.decode(errors="replace")})})


def _description(data):
    return read_description(_content(data))

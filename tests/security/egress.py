"""A federation's round through a recording proxy: the wire is what the audit logs say, no more.

Three real sites and a real coordinator over TLS; the proxy ends TLS on both sides. The sites' data
holds 50 and more random words in DICOM attributes, paths, names, tables and broken files, and one
site's data is away at first, so that its errors name paths. No word may stand on the wire, in the
coordinator's files, or in a log.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2])]

import yaml  # noqa: E402
from flwr.app import Message  # noqa: E402
from safetensors.torch import load  # noqa: E402
from tests.processes.deployment import Deployment, free_port, wait_until  # noqa: E402
from tests.processes.intruder import processes_below  # noqa: E402
from tests.processes.phantoms import small_plan  # noqa: E402
from tests.security.lib.attempts import parse_with_seed  # noqa: E402
from tests.security.lib.canaries import WORDS, Canaries  # noqa: E402
from tests.security.lib.flower_wire import sent_by  # noqa: E402
from tests.security.lib.judged import Judged  # noqa: E402
from tests.security.lib.recording_proxy import RecordingProxy  # noqa: E402

from mamfed_client.disclosure.audit_fields import array_entry, size_of  # noqa: E402
from mamfed_client.disclosure.audit_log import Entry, read_record  # noqa: E402
from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.protocol.messages import ARRAYS, BODY, JSON, WEIGHTS  # noqa: E402
from mamfed_server.settings import ServerHome  # noqa: E402
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort  # noqa: E402

FLEET = "/v1/fleet/"
FOLDER = "name of a data folder"
KNOWN = {
    "register-node", "activate-node", "deactivate-node", "unregister-node", "pull-messages",
    "push-messages", "pull-object", "push-object", "send-node-heartbeat", "get-run", "get-fab",
    "confirm-message-received", "send-app-heartbeat",
}  # fmt: skip
"""The paths of Flower's Fleet API."""


def on_the_wire(message: Message) -> str:
    """Return what a message carried, as a line to compare."""
    content = message.content
    values = json.loads(str(content.config_records[BODY][JSON]))
    records = content.array_records
    state = load(records[ARRAYS][WEIGHTS].data) if ARRAYS in records else {}
    arrays = [array_entry(name, tensor).model_dump() for name, tensor in state.items()]
    known = {key: value for key, value in values.items() if value is not None}
    return _line(known, sorted(arrays, key=str), size_of(content))


def in_the_log(entry: Entry) -> str:
    """Return what a line of the audit log says, in the same form."""
    if entry.kind == "fault":
        return json.dumps({"fault": entry.values["fault"]})
    arrays = [weights.model_dump() for weights in entry.weights]
    return _line(entry.values, sorted(arrays, key=str), entry.bytes)


def _line(values: object, arrays: object, size: int) -> str:
    return json.dumps([values, arrays, size], sort_keys=True)


def place(folder: Path, canaries: Canaries) -> dict[str, Path]:
    """Write three cohorts with words in them, below folders that are words themselves."""
    cohorts = {}
    for name, look in VENDORS.items():
        path = folder / canaries.word(FOLDER) / name
        path.mkdir(parents=True)
        write_cohort(path, look, benign=8, malignant=10, seed=5)
        canaries.put_into(path)
        cohorts[name] = path
    return cohorts


def redirect(federation: Deployment) -> int:
    """Have the coordinator listen on another port than the welcomes say; return it."""
    path, port = federation.server_home / "server.yaml", free_port()
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "port": port}))
    return port


def connections_of(federation: Deployment, served: set[int]) -> set[int]:
    """Return the remote ports of the sites' connections, without those that a site serves."""
    inodes, ports = set(), set()
    sites = [p.pid for name, p in federation.processes.items() if name != "server"]
    for pid in {child for site in sites for child in processes_below(site)}:
        try:
            links = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            local, remote = (int(word.split(":")[1], 16) for word in words[1:3])
            if words[3] == "01" and words[9] in inodes and local not in served:
                ports.add(remote)
    return ports


def run(folder: Path, seed: int) -> None:
    """Run the suite in a folder; it ends with the suite's exit code."""
    attempts, canaries = Judged(), Canaries(seed)
    data = place(folder, canaries)
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=1).to_yaml())
    with Deployment(folder, data) as federation:
        homes = {name: SiteHome(federation.site_home(name)) for name in data}
        upstream, away = redirect(federation), data["cirrus"].with_name("away")
        proxy = RecordingProxy(federation.port, upstream, ServerHome(federation.server_home), homes)
        data["cirrus"].rename(away)  # its errors name the path
        federation.start_server(plan)
        for name in data:
            federation.start_site(name)
        refused = homes["cirrus"].audit
        wait_until(lambda: any(e.kind == "fault" for e in _entries(refused)), "an error at a site")
        away.rename(data["cirrus"])
        ports: set[int] = set()
        own = {federation.port}
        try:
            wait_until(lambda: _sampled(federation, homes, ports, own), "the run ends", 600)
        except TimeoutError:
            print(federation.story())
            raise
        code = federation.processes["server"].wait()
        attempts.judge("the run ends well through the proxy", code == 0, f"exit code {code}")
        for name in data:
            federation.stop(name)
        proxy.close()
        judge_traffic(attempts, proxy, homes)
        attempts.judge("sites connect to the coordinator only", ports <= own, f"{ports}")
        judge_words(attempts, canaries, proxy, federation, homes)
    attempts.finish()


def _sampled(
    federation: Deployment, homes: dict[str, SiteHome], ports: set[int], own: set[int]
) -> bool:
    """Add the sites' present connections and own ports; return whether the run has ended."""
    own |= set(_loopback_ports(homes))
    ports |= connections_of(federation, own)
    return federation.processes["server"].poll() is not None


def _loopback_ports(homes: dict[str, SiteHome]) -> Iterator[int]:
    """Yield the ports on which the sites' nodes serve their workers."""
    for home in homes.values():
        if (home.path / "runtime.json").exists():
            yield int(json.loads((home.path / "runtime.json").read_text())["port"])


def _entries(path: Path) -> list[Entry]:
    return read_record(path).entries


def judge_traffic(attempts: Judged, proxy: RecordingProxy, homes: dict[str, SiteHome]) -> None:
    """Compare what each site sent with its audit log."""
    requests = proxy.requests()
    paths = {request.path.removeprefix(FLEET) for request in requests}
    attempts.judge("only known paths", paths <= KNOWN, sorted(paths - KNOWN) or len(requests))
    for name, home in homes.items():
        sent = sent_by(request for request in requests if request.site == name)
        wire = Counter(on_the_wire(message) for message in sent.messages)
        wire += Counter(json.dumps({"fault": code}) for code in sent.codes)
        log = Counter(in_the_log(entry) for entry in _entries(home.audit))
        attempts.judge(
            f"wire equals audit at {name}",
            wire <= log and (log - wire).total() == sent.untaken,
            f"{wire.total()} messages, {sent.untaken} more announced, {log.total()} lines"
            + "".join(f"\n  differs: {line[:200]}" for line in (wire - log) + (log - wire)),
        )


def judge_words(
    attempts: Judged,
    canaries: Canaries,
    proxy: RecordingProxy,
    federation: Deployment,
    homes: dict[str, SiteHome],
) -> None:
    """Look for the words wherever they must not be."""
    count = len(canaries.words)
    attempts.judge(f"{WORDS} words or more are hidden in the data", count >= WORDS, count)
    searched = {
        "on the wire": b"".join(bytes(one.up) + bytes(one.down) for one in proxy.connections),
        "in the coordinator's files": _all_bytes(federation.server_home),
        "in the coordinator's output": (federation.folder / "server.out").read_bytes(),
        "in the sites' audit logs": b"".join(home.audit.read_bytes() for home in homes.values()),
        "in the sites' logs": b"".join(_all_bytes(home.logs) for home in homes.values()),
        "in the sites' models and answers": b"".join(
            _all_bytes(home.models) + home.answers.read_bytes() for home in homes.values()
        ),
    }
    for where, content in searched.items():
        found = canaries.found_in(content)
        if where == "in the sites' logs":  # the folder that the site's people chose may stand there
            found = [place for place in found if place != FOLDER]
        attempts.judge(f"no word {where}", not found, found or f"{len(content)} bytes")


def _all_bytes(folder: Path) -> bytes:
    paths = sorted(folder.rglob("*")) if folder.exists() else []
    names = "\n".join(map(str, (path.relative_to(folder) for path in paths)))
    return names.encode() + b"".join(path.read_bytes() for path in paths if path.is_file())


def main() -> None:
    """Run the suite; exit with 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="The same: it takes a minute.")
    given = parse_with_seed(parser)
    with tempfile.TemporaryDirectory(prefix="egress-") as folder:
        run(Path(folder), given.seed)


if __name__ == "__main__":
    main()

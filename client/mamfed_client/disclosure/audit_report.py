"""The report of what left a site, in numbers and words for a data-protection officer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from mamfed_client.disclosure.audit_log import Entry, read_record
from mamfed_client.disclosure.audit_proofs import NO_KEYS, AuditKeys, AuditProofs, check_proofs
from mamfed_common.config import Config
from mamfed_common.runtime.wording import counted, size

NOT_IN_THE_FORMAT = (
    "Only the following can leave: the network's weights, the values named above, the plan's terms "
    "for groups of images, the reasons why images are excluded, equipment makers from a fixed "
    "list, and this site's name. The message format has no place for images, masks, file names, "
    "dates, or patients' names or numbers. Weights are computed from images; policy.privacy in "
    "site.yaml limits what they can reveal about one site."
)

SURVEYS = (
    "A survey is a file that a person here sends by hand (mamfed-client data describe); it also "
    "has views, pixel spacings, image sizes, breast areas and tones, over many patients each."
)


class Traffic(Config):
    """Messages of one kind: their number, size, and the names of the values in them."""

    messages: int
    bytes: int
    values: tuple[str, ...]


class AuditSummary(Config):
    """Totals of an intact audit log.

    Attributes:
        lines: Number of lines.
        last_sha256: Hash of the last line.
        since: When the first message left, UTC; None if none left.
        until: When the last message left.
        to: Federations that received messages.
        kinds: Messages by kind.
        bytes: Size of all messages.
        personal: Number of ``evaluate`` messages about this site's personal model.
        rounds: Rounds trained, by stage; a repeated round counts once.
        plans: Number of messages by the plan that requested them.
        policies: Policies under which messages left.
        faults: Codes that left in place of answers, with their counts.
        fault_times: When each code left first and last, UTC.
        torn: Lines truncated by power cuts; the messages they were to record did not leave.
        unfinished_bytes: Size of a truncated line at the end, which the next entry will record.
        proofs: The signatures over it.
    """

    lines: int
    last_sha256: str
    since: str | None
    until: str | None
    to: tuple[str, ...]
    kinds: dict[str, Traffic]
    bytes: int
    personal: int = 0
    rounds: dict[str, tuple[int, ...]]
    plans: dict[str, int]
    policies: tuple[str, ...]
    faults: dict[int, int]
    fault_times: dict[int, tuple[str, str]] = Field(default_factory=dict)
    torn: int
    unfinished_bytes: int
    proofs: AuditProofs = AuditProofs()


def verify(path: Path, keys: AuditKeys = NO_KEYS) -> AuditSummary:
    """Check every line of an audit log, and all signatures, and count what left.

    Raises:
        AuditError: A line was changed, removed, added or moved, or the end was cut off; the first
            such line is named. Or the log was rewritten: a signature does not fit.
    """
    entries, head, unfinished = read_record(path)
    sent = [entry for entry in entries if entry.kind != "torn"]
    return AuditSummary(
        lines=len(entries),
        last_sha256=head.sha256,
        since=sent[0].time if sent else None,
        until=sent[-1].time if sent else None,
        to=_names(entry.to for entry in sent),
        kinds={
            kind: _traffic(entry for entry in sent if entry.kind == kind)
            for kind in _names(entry.kind for entry in sent)
        },
        bytes=sum(entry.bytes for entry in sent),
        personal=sum(e.model == "personal" and e.kind == "evaluate" for e in sent),
        rounds=_rounds(sent),
        plans=dict(Counter(entry.plan_sha256 for entry in sent if entry.plan_sha256)),
        policies=_names(entry.policy_sha256 for entry in sent),
        faults=dict(Counter(_code(entry) for entry in sent if entry.kind == "fault")),
        fault_times=_fault_times(sent),
        torn=len(entries) - len(sent),
        unfinished_bytes=len(unfinished),
        proofs=check_proofs(path, entries, keys),
    )


def sentences(summary: AuditSummary) -> Iterator[str]:
    """Yield sentences about what left, one per line."""
    yield _integrity(summary)
    yield vouched(summary)
    if summary.since is None:
        yield "Nothing has left this site."
        return
    messages = sum(traffic.messages for traffic in summary.kinds.values())
    yield (
        f"From {summary.since} to {summary.until} {counted(messages, 'message')} left this site, "
        f"{size(summary.bytes)} in all, to {', '.join(summary.to)}."
    )
    yield from (_of_kind(kind, traffic) for kind, traffic in summary.kinds.items())
    if summary.personal:
        yield (
            f"About this site's personal model: "
            f"{counted(summary.personal, 'evaluate message')} of those above. The model's weights "
            "stayed here."
        )
    for stage, rounds in summary.rounds.items():
        numbers = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"number {rounds[0]}"
        yield f"Trained in {stage}: {counted(len(rounds), 'round')}, {numbers}."
    for plan, count in summary.plans.items():
        yield f"Requested by plan {plan}: {counted(count, 'message')}."
    yield f"Allowed by policy {', '.join(summary.policies)}."
    yield from _refusals(summary)
    if "survey" in summary.kinds:
        yield SURVEYS
    yield NOT_IN_THE_FORMAT


def _integrity(summary: AuditSummary) -> str:
    lines = counted(summary.lines, "line")
    text = f"The audit log is intact: {lines}, last hash {summary.last_sha256}."
    if summary.torn:
        torn = counted(summary.torn, "line")
        text += f" Power cuts truncated {torn}; the messages to be recorded there did not leave."
    if summary.unfinished_bytes:
        unfinished = counted(summary.unfinished_bytes, "byte")
        text += f" At the end are {unfinished} of a line that a power cut truncated."
    return text


def vouched(summary: AuditSummary) -> str:
    """Return a sentence about the signatures."""
    proofs = summary.proofs
    text = f"This site's key signed {proofs.signed} of {counted(summary.lines, 'line')}; "
    if proofs.countersigned:
        last = proofs.countersigned[-1]
        text += (
            f"the coordinator countersigned {counted(len(proofs.countersigned), 'head')}, the last "
            f"at line {last.count} at {last.time}: up to it nothing was rewritten since."
        )
    else:
        text += "the coordinator countersigned no head yet."
    if proofs.unknown_seals:
        text += f" {counted(proofs.unknown_seals, 'head')} signed by a key not trusted here."
    return text


def _of_kind(kind: str, traffic: Traffic) -> str:
    text = f"{kind}: {counted(traffic.messages, 'message')}, {size(traffic.bytes)}"
    return f"{text}, with {', '.join(traffic.values)}." if traffic.values else f"{text}."


def _refusals(summary: AuditSummary) -> Iterator[str]:
    from mamfed_common.protocol.tasks import REFUSAL_CODES

    for code, count in sorted(summary.faults.items()):
        yield (
            f"Instead of an answer, {counted(count, 'time')}{_when(summary, code)}, code {code}: "
            f"{REFUSAL_CODES.get(code, 'unknown')}."
        )


def _when(summary: AuditSummary, code: int) -> str:
    first, last = summary.fault_times.get(code, ("", ""))
    return f" ({first})" if first == last else f" (from {first} to {last})"


def _code(entry: Entry) -> int:
    return int(entry.values.get("fault", 0))


def _fault_times(entries: Iterable[Entry]) -> dict[int, tuple[str, str]]:
    times: dict[int, tuple[str, str]] = {}
    for entry in entries:
        if entry.kind == "fault":
            first, _ = times.get(_code(entry), (entry.time, ""))
            times[_code(entry)] = first, entry.time
    return times


def _traffic(entries: Iterable[Entry]) -> Traffic:
    messages = list(entries)
    return Traffic(
        messages=len(messages),
        bytes=sum(entry.bytes for entry in messages),
        values=_names(name for entry in messages for name in entry.values),
    )


def _rounds(entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    pairs = sorted({(e.stage, e.round) for e in entries if e.kind == "train"}, key=str)
    stages = {stage for stage, _ in pairs}
    return {
        str(stage): tuple(sorted(number or 0 for name, number in pairs if name == stage))
        for stage in sorted(stages, key=str, reverse=True)
    }


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))

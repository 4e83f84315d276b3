"""What left a site, counted and in words for a data-protection officer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from mamfed_client.disclosure.audit_log import Entry, read_record
from mamfed_common.config import Config
from mamfed_common.runtime.wording import counted, size

NOT_IN_THE_FORMAT = (
    "What can leave at all: the network's weights, the values named above, the plan's words for "
    "groups of images, the reasons for which images are left out, makers of units by names from a "
    "fixed list, and this site's own name. No image, mask, file name, date, patient's name or "
    "number has a place in these messages. Weights are computed from images; policy.privacy in "
    "site.yaml limits what they can tell of one site."
)


class Traffic(Config):
    """Messages of one kind: how many, their size, and the values in them by name."""

    messages: int
    bytes: int
    values: tuple[str, ...]


class AuditSummary(Config):
    """A record that holds together, counted.

    Attributes:
        lines: Its lines.
        last_sha256: Hash of the last one.
        since: When the first message left, UTC; None where none did.
        until: When the last one did.
        to: Federations.
        kinds: Messages by kind.
        bytes: Size of all messages.
        personal: Of the ``evaluate`` messages, those about this site's personal model.
        rounds: Rounds trained, by stage; a round asked again counts once.
        plans: Messages by the plan that asked for them.
        policies: Policies that let messages leave.
        faults: Codes that left in place of answers, and how often.
        fault_times: When each of them left first and last, UTC.
        torn: Lines that a power cut tore; what they were to record did not leave.
        unfinished_bytes: Size of a torn line at the end, which the next entry will name.
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


def verify(path: Path) -> AuditSummary:
    """Check every line of a record and count what left.

    Raises:
        AuditError: A line was changed, removed, added or moved, or the end was cut; the first such
            line is named.
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
    )


def sentences(summary: AuditSummary) -> Iterator[str]:
    """Say what left, one line each."""
    yield _whole(summary)
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
            f"{counted(summary.personal, 'evaluate message')} of those above; its "
            "weights stayed here."
        )
    for stage, rounds in summary.rounds.items():
        which = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"number {rounds[0]}"
        yield f"Trained in {stage}: {counted(len(rounds), 'round')}, {which}."
    for plan, count in summary.plans.items():
        yield f"Asked for by plan {plan}: {counted(count, 'message')}."
    yield f"Let out by policy {', '.join(summary.policies)}."
    yield from _refusals(summary)
    yield NOT_IN_THE_FORMAT


def _whole(summary: AuditSummary) -> str:
    lines = counted(summary.lines, "line")
    text = f"The record is whole: {lines}, the last one's hash {summary.last_sha256}."
    if summary.torn:
        torn = counted(summary.torn, "line")
        text += f" A power cut tore {torn}; what was to be recorded there did not leave."
    if summary.unfinished_bytes:
        left = counted(summary.unfinished_bytes, "byte")
        text += f" After them {left} of a line that a power cut tore."
    return text


def _of_kind(kind: str, traffic: Traffic) -> str:
    text = f"{kind}: {counted(traffic.messages, 'message')}, {size(traffic.bytes)}"
    return f"{text}, with {', '.join(traffic.values)}." if traffic.values else f"{text}."


def _refusals(summary: AuditSummary) -> Iterator[str]:
    from mamfed_common.protocol.tasks import REFUSAL_CODES

    for code, count in sorted(summary.faults.items()):
        yield (
            f"In place of an answer, {counted(count, 'time')}{_when(summary, code)}, code {code}: "
            f"{REFUSAL_CODES.get(code, 'unknown')}."
        )


def _when(summary: AuditSummary, code: int) -> str:
    first, last = summary.fault_times.get(code, ("", ""))
    return f" ({first})" if first == last else f" (from {first} to {last})"


def _code(entry: Entry) -> int:
    return int(entry.values.get("fault", 0))


def _fault_times(entries: Iterable[Entry]) -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for entry in entries:
        if entry.kind == "fault":
            first, _ = found.get(_code(entry), (entry.time, ""))
            found[_code(entry)] = first, entry.time
    return found


def _traffic(entries: Iterable[Entry]) -> Traffic:
    found = list(entries)
    return Traffic(
        messages=len(found),
        bytes=sum(entry.bytes for entry in found),
        values=_names(name for entry in found for name in entry.values),
    )


def _rounds(entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    pairs = sorted({(e.stage, e.round) for e in entries if e.kind == "train"}, key=str)
    stages = {stage for stage, _ in pairs}
    return {
        str(stage): tuple(sorted(number or 0 for found, number in pairs if found == stage))
        for stage in sorted(stages, key=str, reverse=True)
    }


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))

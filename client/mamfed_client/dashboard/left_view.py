"""Everything that left this site, in words and numbers, and what may still leave this year."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mamfed_client.dashboard.value_words import value_words
from mamfed_client.disclosure.answered import AnsweredQuestions
from mamfed_client.disclosure.audit_entry import Entry
from mamfed_client.disclosure.audit_log import read_record
from mamfed_client.disclosure.audit_proofs import keys_of
from mamfed_client.disclosure.audit_report import AuditSummary, sentences, verify
from mamfed_client.site.policy import Policy
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import AuditError, MamfedError
from mamfed_common.protocol.tasks import REFUSAL_CODES
from mamfed_common.runtime.wording import counted, size

LATEST = 200
"""Most lines of the log on the page, the newest; ``audit report`` counts all of them."""
LONGEST_VALUE = 400
DIGEST = re.compile(r"[0-9a-f]{64}")

PARTS = {"val": "validation patients", "test": "test patients", "train": "training patients"}


class LeftLine(NamedTuple):
    """One message that left.

    Attributes:
        number: Its line in the log.
        time: When, UTC.
        what: What it answered, in words.
        size: Its size, in words.
        values: The values in it, each as ``name: value``.
        behind: How many patients are behind it, in words; empty if not recorded.
        withheld: What stayed, with the reason.
        refused: Whether it is a code in place of an answer.
    """

    number: int
    time: str
    what: str
    size: str
    values: tuple[str, ...]
    behind: str
    withheld: tuple[str, ...]
    refused: bool


class Budget(NamedTuple):
    """What may leave in a year: in words, used, allowed, and the policy's key."""

    what: str
    used: float
    allowed: float
    key: str

    @property
    def share(self) -> float:
        """Share that is used, 0..1."""
        return min(1.0, self.used / self.allowed) if self.allowed else 1.0


class LeftView(NamedTuple):
    """What left.

    Attributes:
        broken: Why the log cannot be trusted; empty if it is intact.
        messages: Number of messages.
        size: Their size, in words.
        to: The federations that received them.
        intact: A sentence about the log's lines and signatures.
        sentences: The report for a data-protection officer.
        lines: The newest messages, newest first.
        more: How many older ones are not listed.
        budgets: What is used of the year's limits.
        privacy: What differential privacy has spent, in words; empty if it is off.
    """

    broken: str = ""
    messages: int = 0
    size: str = ""
    to: tuple[str, ...] = ()
    intact: str = ""
    sentences: tuple[str, ...] = ()
    lines: tuple[LeftLine, ...] = ()
    more: int = 0
    budgets: tuple[Budget, ...] = ()
    privacy: str = ""


def left_view(home: SiteHome) -> LeftView:
    """Check the whole audit log and describe what left.

    Raises:
        SetupError: ``site.yaml``, a key or the memory of answers cannot be read.
    """
    policy = load_site_settings(home).policy
    budgets = tuple(_budgets(home, policy))
    try:
        summary, entries = verify(home.audit, keys_of(home)), read_record(home.audit).entries
    except AuditError as error:
        return LeftView(broken=str(error), budgets=budgets)
    # A line that was written since the check is for the next reading.
    sent = [entry for entry in entries if entry.kind != "torn" and entry.n <= summary.lines]
    return LeftView(
        messages=len(sent),
        size=size(summary.bytes),
        to=summary.to,
        intact=_intact(summary),
        sentences=tuple(sentences(summary)),
        lines=tuple(line_of(entry) for entry in sent[: -LATEST - 1 : -1]),
        more=max(0, len(sent) - LATEST),
        budgets=budgets,
        privacy=_privacy(home, policy),
    )


def line_of(entry: Entry) -> LeftLine:
    """Describe one line of the log."""
    return LeftLine(
        number=entry.n,
        time=entry.time,
        what=_what(entry),
        size=size(entry.bytes),
        values=tuple(_values(entry)),
        behind=", ".join(
            f"{_plain(what)} of {counted(n, 'patient')}"
            for what, n in (entry.patients or {}).items()
        ),
        withheld=tuple(
            f"{value_words(name)}: {why}" for name, why in (entry.withheld or {}).items()
        ),
        refused=entry.kind == "fault",
    )


def _what(entry: Entry) -> str:
    again = ", the same answer again" if entry.again else ""
    if entry.kind == "fault":
        code = int(entry.values.get("fault", 0))
        return f"No answer, only code {code}: {REFUSAL_CODES.get(code, 'unknown')}"
    if entry.kind == "describe":
        return f"Counts that describe the data{again}"
    if entry.kind == "survey":
        return "A survey of the data in counts, as a file that a person here sends by hand"
    where = f"{entry.stage} round {entry.round}"
    if entry.kind == "train":
        arrays = counted(len(entry.weights), "array")
        return f"Weights of the network, trained in {where}: {arrays} of numbers{again}"
    model = "the personal model" if entry.model == "personal" else "the shared model"
    patients = f" on {PARTS[entry.part]}" if entry.part else ""
    return f"Scores of {model}{patients}, {where}{again}"


def _values(entry: Entry) -> Iterator[str]:
    for name, value in entry.values.items():
        if name != "fault":
            shown = _in_words(value)
            cut = shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]} ..."
            yield f"{value_words(name)}: {cut}"


def _in_words(value: object) -> str:
    """Return a value as text: nested counts with their names, numbers to four digits."""
    if isinstance(value, dict):
        parts = (
            f"{_plain(name)} ({_in_words(x)})" if isinstance(x, dict) else f"{_plain(name)} {x}"
            for name, x in value.items()
        )
        return ", ".join(parts) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(item) for item in value) or "none"
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return f"{value[:12]}..."
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(name: str) -> str:
    return str(name).replace("_", " ")


def _intact(summary: AuditSummary) -> str:
    if not summary.lines:
        return "Nothing has left this site."
    proofs = summary.proofs
    text = f"The log is intact: {counted(summary.lines, 'line')}, {proofs.signed} signed here"
    if not proofs.countersigned:
        return f"{text}; the coordinator countersigned none yet."
    last = proofs.countersigned[-1]
    return f"{text}; the coordinator countersigned up to line {last.count} at {_clock(last.time)}."


def _clock(time: str) -> str:
    """Return a time of the log as a person writes it."""
    return f"{time.replace('T', ' ').replace('Z', '')} UTC"


def _budgets(home: SiteHome, policy: Policy) -> Iterator[Budget]:
    spent, bounds = AnsweredQuestions(home.answers).spent(), policy.bounds
    key = "policy.bounds.max_{}_a_year"
    yield Budget("rounds trained", spent.rounds, bounds.max_rounds_a_year, key.format("rounds"))
    yield Budget("scores sent", spent.scores, bounds.max_scores_a_year, key.format("scores"))
    yield Budget(
        "divisions of patients scored", spent.splits, bounds.max_splits_a_year, key.format("splits")
    )


def _privacy(home: SiteHome, policy: Policy) -> str:
    rule = policy.privacy.patients
    if rule is None:
        return ""
    from mamfed_client.disclosure.privacy_ledger import PatientBudget, PrivacyLedger

    try:
        spent = PatientBudget(rule, PrivacyLedger(home.privacy)).spent()
    except MamfedError as error:
        return str(error)
    return (
        f"Epsilon {spent.epsilon:.2f} of {rule.max_epsilon:g} is spent, at delta {rule.delta:g}, "
        "over all rounds of all plans."
    )

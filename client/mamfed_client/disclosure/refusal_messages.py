"""The line that a site shows its people while it refuses requests: reason and remedy."""

from __future__ import annotations

from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.site.status import RecentRefusal
from mamfed_common.errors import DataError, JobError
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_common.runtime.files import ADVICE, refusal_words

REMEDIES: dict[int, str] = {
    RefusalCode.FAILED: "see logs/worker.log",
    RefusalCode.PLAN_NOT_SIGNED: "ask the coordinator for a new welcome, then run mamfed-client "
    "join with it",
    RefusalCode.NOT_AT_THIS_HOUR: "nothing to do: this site is asked again at that time",
    RefusalCode.TOO_FEW_CASES: "run mamfed-client data check to see why images are excluded, or "
    "lower policy.min_training_cases or min_patients_a_round in site.yaml",
    RefusalCode.MAY_NOT_LEAVE: "allow it in policy.release in site.yaml, or do not take part",
    RefusalCode.OTHER_VERSION: "install the coordinator's version of mamfed",
    RefusalCode.EXTENSION_UNUSABLE: "install the package, or do not take part",
    RefusalCode.POLICY_UNREADABLE: "fix it; the change takes effect at the next message",
    RefusalCode.BUDGET_SPENT: "raise it in policy.bounds in site.yaml, or wait",
    RefusalCode.DATA_UNUSABLE: "run mamfed-client preflight to check the data again",
}
"""Remedies by code; the other refusals include their own."""

PASSING = frozenset({RefusalCode.PLAN_NOT_APPROVED, RefusalCode.NOT_AT_THIS_HOUR})
"""Refusals of a site that only waits for a person or an hour."""
OF_ONE_SCORE = frozenset(
    {
        RefusalCode.NO_PERSONAL_MODEL,
        RefusalCode.NOTHING_TO_ADAPT_WITH,
        RefusalCode.TOO_FEW_PATIENTS,
    }
)
"""Refusals that cost a score only; the site still takes part in the run."""


def refusal_of(error: Exception, fault: RefusalCode) -> RecentRefusal | None:
    """Return what to show while requests are refused; None if the site still takes part.

    Args:
        error: The reason. Texts of foreign errors stay in the log.
        fault: The code that leaves.
    """
    if fault in OF_ONE_SCORE:
        return None
    why = REFUSAL_CODES[fault].replace("the site", "this site", 1)
    if isinstance(error, PolicyRefusal):
        why = str(error).replace("the site", "this site", 1)
    elif isinstance(error, DataError | JobError):
        why = f"{why}: {' '.join(str(error).split())}"
    elif isinstance(error, OSError) and error.errno in ADVICE:  # its path may name an image
        why = f"{why}: {refusal_words(error)}"
    remedy = REMEDIES.get(fault, "")
    return RecentRefusal(
        fault=fault,
        words=f"{why}; {remedy}" if remedy else why,
        passing=fault in PASSING,
    )

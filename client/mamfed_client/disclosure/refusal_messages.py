"""What a person of a site reads while it does not answer: why, and what to do, in one line."""

from __future__ import annotations

from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.site.status import RecentRefusal
from mamfed_common.errors import DataError
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_common.runtime.files import ADVICE, refusal_words

REMEDIES: dict[int, str] = {
    RefusalCode.FAILED: "logs/worker.log says more",
    RefusalCode.PLAN_NOT_SIGNED: "ask the coordinator for a new welcome, then mamfed-client join "
    "it",
    RefusalCode.NOT_AT_THIS_HOUR: "nothing to do: this site is asked again then",
    RefusalCode.TOO_FEW_CASES: "mamfed-client data check says why images are left out; or lower "
    "policy.min_training_cases in site.yaml",
    RefusalCode.MAY_NOT_LEAVE: "let it leave by policy.release in site.yaml, or stay out",
    RefusalCode.OTHER_VERSION: "install the coordinator's version of mamfed",
    RefusalCode.POLICY_UNREADABLE: "mend that, it takes effect at the next message",
    RefusalCode.DATA_UNUSABLE: "mamfed-client preflight checks the data again",
}
"""What to do; the other refusals name it themselves."""

PASSING = frozenset({RefusalCode.PLAN_NOT_APPROVED, RefusalCode.NOT_AT_THIS_HOUR})
"""Refusals of a site that waits for a person or an hour: nothing is wrong."""
OF_ONE_MODEL = frozenset({RefusalCode.NO_PERSONAL_MODEL, RefusalCode.NOTHING_TO_ADAPT_WITH})
"""Refusals that cost a figure, and not the site's part in the run."""


def refusal_of(error: Exception, fault: RefusalCode) -> RecentRefusal | None:
    """Return what to show while a request is not answered; None where the site takes part.

    Args:
        error: Why; the text of any but our own errors stays in the log.
        fault: The code that leaves.
    """
    if fault in OF_ONE_MODEL:
        return None
    why = REFUSAL_CODES[fault].replace("the site", "this site", 1)
    if isinstance(error, PolicyRefusal):
        why = str(error).replace("the site", "this site", 1)
    elif isinstance(error, DataError):
        why = f"{why}: {' '.join(str(error).split())}"
    elif isinstance(error, OSError) and error.errno in ADVICE:  # its path may be an image's
        why = f"{why}: {refusal_words(error)}"
    remedy = REMEDIES.get(fault, "")
    return RecentRefusal(
        fault=fault,
        words=f"{why}; {remedy}" if remedy else why,
        passing=fault in PASSING,
    )

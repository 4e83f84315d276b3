"""``card.md`` beside a run's models: what they are, how they were checked, what they scored."""

from __future__ import annotations

from collections.abc import Iterator

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.metrics.scores import SiteScore
from mamfed_common.runtime.wording import counted

CARD = "card.md"


def card(
    run: str,
    facts: CheckpointFacts,
    shared: SiteScore | None,
    personal: SiteScore | None,
    *,
    from_file: bool = False,
) -> str:
    """Write the card of a run's models as Markdown.

    Args:
        run: What the coordinator calls the run; empty in a simulation.
        facts: What the shared weights are.
        shared: What the shared model scored on this site's test patients; None: not known.
        personal: Likewise this site's own.
        from_file: Whether a person added the model as a file; else the server brought it.
    """
    checked = (FROM_FILE if from_file else FROM_SERVER) if run else ()
    lines = [*_what_it_is(run, facts), *_scores(shared, personal), "", *checked, *ALWAYS]
    return "\n".join(lines) + "\n"


FROM_SERVER = (
    "Checked when it came: the plan is signed by a key that this site trusts, and was admitted by",
    "its policy; the weights came from the federation's server (TLS, its authority), of the very",
    "network that the plan describes.",
)
FROM_FILE = (
    "Added as a file by a person of this site (`mamfed-client models add`). Checked: the plan came",
    "here signed by a key that this site trusts; the weights are whole and of the network that the",
    "plan describes. That they are the run's own only the SHA-256 above can tell: compare it with",
    "the coordinator's.",
)
ALWAYS = (
    "`mamfed-client models list` holds the file against its SHA-256 each time.",
    "",
    "What it scored at other sites, and on which makers' images: ask the coordinator for the run's",
    "report and model card (`mamfed-server export`). Your own images may differ from all of them:",
    "`mamfed-client evaluate --model shared` tells how it does on those.",
)


def _what_it_is(run: str, facts: CheckpointFacts) -> Iterator[str]:
    yield f"# The final model of run {run}" if run else "# The final model"
    yield ""
    yield "It marks what looks malignant on a mammogram, and redraws that as healthy tissue."
    yield "**For research: it is no medical device, and no diagnosis may rest on it.**"
    yield ""
    yield f"- weights: `shared.safetensors`, SHA-256 `{facts.weights_sha256}`"
    yield f"- of plan `{facts.plan_sha256}`, {facts.stage.value} round {facts.server_round}"
    yield f"- images of {facts.plan.image_size} x {facts.plan.image_size} pixels"
    marks = facts.plan.evaluation.threshold if facts.threshold is None else facts.threshold
    yield f"- marks pixels of probability {marks:g} or more"


def _scores(shared: SiteScore | None, personal: SiteScore | None) -> Iterator[str]:
    yield f"- this site's test patients, shared model: {_score(shared)}"
    if personal is not None:
        yield f"- the same, this site's own model (`personal.safetensors`): {_score(personal)}"


def _score(score: SiteScore | None) -> str:
    if score is not None and score.images == 0:
        return "not scored, as none of them has a malignant image"
    if score is None or score.dice is None:
        return "not scored"
    found = ""
    if score.lesions is not None and score.lesions_found is not None:
        found = f", {score.lesions_found} of {counted(score.lesions, 'lesion')} found"
    return f"mean Dice {score.dice:.3f} over {counted(score.images or 0, 'image')}{found}"

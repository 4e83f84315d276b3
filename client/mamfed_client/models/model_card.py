"""``card.md`` beside a run's models: what they are, how they were checked, and their scores."""

from __future__ import annotations

from collections.abc import Iterator

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.metrics.site_score import SiteScore
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
    """Return the card of a run's models as Markdown.

    Args:
        run: The coordinator's name for the run; empty in a simulation.
        facts: Facts of the shared weights.
        shared: Score of the shared model on this site's test patients; None if unknown.
        personal: Score of the personal model on them; None if unknown.
        from_file: Whether a person added the model as a file; otherwise the server sent it.
    """
    checked = (FROM_FILE if from_file else FROM_SERVER) if run else ()
    lines = [*_description(run, facts), *_scores(shared, personal), "", *checked, *ALWAYS]
    return "\n".join(lines) + "\n"


FROM_SERVER = (
    "Checked on arrival: the plan is signed by a key that this site trusts, and the site's policy",
    "admitted it; the weights came from the federation's server (TLS, its authority) and match the",
    "network that the plan describes.",
)
FROM_FILE = (
    "Added as a file by a person at this site (`mamfed-client models add`). Checked: the plan",
    "arrived here signed by a key that this site trusts; the weights are complete and match the",
    "network that the plan describes. Only the SHA-256 above shows that they are the run's own:",
    "compare it with the coordinator's.",
)
ALWAYS = (
    "`mamfed-client models list` checks the file against its SHA-256 each time.",
    "",
    "For its scores at other sites and on other makers' images, ask the coordinator for the run's",
    "report and model card (`mamfed-server export`). Your own images may differ from all of them;",
    "run `mamfed-client evaluate --model shared` to score it on yours.",
)


def _description(run: str, facts: CheckpointFacts) -> Iterator[str]:
    yield f"# The final model of run {run}" if run else "# The final model"
    yield ""
    yield "It marks what looks malignant on a mammogram, and redraws it as healthy tissue."
    yield "**For research only: it is not a medical device and must not be used for diagnosis.**"
    yield ""
    yield f"- weights: `shared.safetensors`, SHA-256 `{facts.weights_sha256}`"
    yield f"- of plan `{facts.plan_sha256}`, {facts.stage.value} round {facts.server_round}"
    yield f"- images of {facts.plan.image_size} x {facts.plan.image_size} pixels"
    plan_threshold = facts.plan.evaluation.threshold
    threshold = plan_threshold if facts.threshold is None else facts.threshold
    yield f"- marks pixels of probability {threshold:g} or more"


def _scores(shared: SiteScore | None, personal: SiteScore | None) -> Iterator[str]:
    yield f"- this site's test patients, shared model: {_score(shared)}"
    if personal is not None:
        yield f"- the same patients, personal model (`personal.safetensors`): {_score(personal)}"


def _score(score: SiteScore | None) -> str:
    if score is not None and score.images == 0:
        return "not scored, because none of them has a malignant image"
    if score is None or score.dice is None:
        return "not scored"
    lesions = ""
    if score.lesions is not None and score.lesions_found is not None:
        lesions = f", {score.lesions_found} of {counted(score.lesions, 'lesion')} found"
    return f"mean Dice {score.dice:.3f} over {counted(score.images or 0, 'image')}{lesions}"

"""The events of a round of training once it has ended: what became of each site's update."""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.domain import Purpose
from mamfed_common.plan import TrainingPlan
from mamfed_server.aggregation.site_weights import counts_that_weigh
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.run_folder.round_record import RoundRecord


def log_updates(
    log: EventLog,
    record: RoundRecord,
    plan: TrainingPlan,
    first_counts: Mapping[str, Mapping[Purpose, int]],
) -> None:
    """Log the refused, shortened and private updates of a round, and counts that have grown.

    Args:
        log: The run's event log.
        record: The round.
        plan: The run's plan.
        first_counts: How many images each site used in its first accepted update of the stage.
    """
    where = {"stage": record.stage, "server_round": record.server_round}
    this_round = f"{record.stage} round {record.server_round}"
    for site, reason in record.refused.items():
        warning = f"{this_round}: {site} left out: {reason}"
        log.write("refused", **where, site=site, warning=warning)
    for site, update in record.accepted.items():
        if update.privacy:
            log.write("privacy", **where, site=site, **update.privacy.model_dump())
        if update.clipped_from:
            most = plan.federation.clip_update_norm_ratio
            warning = (
                f"{this_round}: the update of {site} was {update.clipped_from:.3g} times as long "
                f"as the median, shortened to {most:g}"
            )
            log.write("shortened", **where, site=site, warning=warning)
        weighed = counts_that_weigh(update.num_examples, first_counts.get(site, {}))
        if weighed != update.num_examples:
            now, first = sum(update.num_examples.values()), sum(weighed.values())
            warning = (
                f"{site} has {now} images of {record.stage} and weighs by the {first} at first"
            )
            log.write("grown", **where, site=site, warning=warning)


def too_few(record: RoundRecord, need: int) -> str:
    """Return in words that a round has too few accepted updates."""
    return (
        f"{record.stage} round {record.server_round}: {len(record.accepted)} of "
        f"{len(record.expected)} updates accepted, quorum is {need}"
    )

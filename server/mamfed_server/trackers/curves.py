"""The curves of a run: what each round adds to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mamfed_common.plan import Stage
from mamfed_server.run_folder.round_record import RoundRecord


class Point(NamedTuple):
    """One point of a curve.

    Attributes:
        tag: The curve, such as ``loss/finetuning/north``.
        step: The round, counted from 1 over both stages.
        value: Its value.
    """

    tag: str
    step: int
    value: float


def points_of(record: RoundRecord, step: int) -> Iterator[Point]:
    """Yield the points of one round: loss and Dice by site and overall, time and updates.

    Args:
        record: The round.
        step: Its number, counted from 1 over both stages.
    """
    stage = str(record.stage)
    losses = {site: update.loss for site, update in record.accepted.items()}
    weighed = [
        (update.share, update.loss)
        for update in record.accepted.values()
        if update.loss is not None
    ]
    values = {f"loss/{stage}/{site}": loss for site, loss in losses.items()}
    if total := sum(share for share, _ in weighed):
        values[f"loss/{stage}/all"] = sum(share * loss for share, loss in weighed) / total
    for site, score in record.validation.items():
        values[f"validation_dice/{site}"] = score.dice
    values["validation_dice/all_images"] = record.pooled_validation_dice
    values["validation_dice/mean_of_sites"] = record.mean_validation_dice
    values["round/seconds"] = record.seconds
    values["round/accepted_updates"] = float(len(record.accepted))
    values["round/refused_updates"] = float(len(record.refused))
    for tag, value in values.items():
        if value is not None:
            yield Point(tag, step, value)


def numbered(records: Sequence[RoundRecord]) -> Iterator[tuple[int, RoundRecord]]:
    """Yield each round with its number over both stages, stage 1 first."""
    ordered = sorted(records, key=lambda r: (list(Stage).index(r.stage), r.server_round))
    yield from enumerate(ordered, start=1)

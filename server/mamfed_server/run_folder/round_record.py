"""The record of one round: one line of a run folder's ``rounds.jsonl``."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from mamfed_common.config import Config, ExtensibleConfig
from mamfed_common.domain import Examples
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.plan import TRAINED_ON, Stage
from mamfed_common.protocol.tasks import PrivacySpent


class Contribution(ExtensibleConfig):
    """One accepted update.

    Attributes:
        num_examples: Its examples by kind.
        share: Its share of the average.
        loss: Its training loss; None if the site withholds it.
        privacy: The differential privacy that the site's patients have spent so far, if it trains
            with it; the site says so, and the server cannot check it.
        clipped_from: If the update was shortened (``federation.clip_update_norm_ratio``): its norm
            before, over the median norm.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"privacy", "clipped_from"})

    num_examples: Examples
    share: float
    loss: float | None
    privacy: PrivacySpent | None = None
    clipped_from: float | None = None


class RoundRecord(Config):
    """One line of ``rounds.jsonl``.

    Attributes:
        stage: The round's stage.
        server_round: The round, counted from 1 within its stage.
        expected: Sites that were asked.
        answered: Sites that sent anything back before the deadline.
        accepted: Sites whose update is part of the new weights.
        refused: Other sites that were asked, each with the reason.
        absent: Approved sites that were not available to be asked, each with the reason.
        validation: Validation scores of the new weights by site (stage 2).
        mean_validation_dice: Mean over sites of their validation Dice.
        pooled_validation_dice: Validation Dice at threshold 0.5 over all images of all sites, which
            the choice of the round is based on.
        validation_images: Number of images behind ``pooled_validation_dice``.
        bytes_sent: Bytes of weights sent to sites for training.
        bytes_received: Bytes of weights received in updates, including refused ones.
        seconds: Duration of the round, including validation.
        started_at: When it started, UTC, ISO 8601.
        deadlines: Maximum time to wait for each site, in seconds.
        durations: Seconds until each site answered, or its full deadline if it did not.
        validation_durations: The same for the validation.
    """

    stage: Stage
    server_round: int
    expected: tuple[str, ...]
    answered: tuple[str, ...]
    accepted: dict[str, Contribution]
    refused: dict[str, str]
    absent: dict[str, str] = Field(default_factory=dict)
    validation: dict[str, SiteScore] = Field(default_factory=dict)
    mean_validation_dice: float | None = None
    pooled_validation_dice: float | None = None
    validation_images: int | None = None
    bytes_sent: int = Field(default=0, ge=0)
    bytes_received: int = Field(default=0, ge=0)
    seconds: float = 0.0
    started_at: str = ""
    deadlines: dict[str, float] = Field(default_factory=dict)
    durations: dict[str, float] = Field(default_factory=dict)
    validation_durations: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _upgrade_from_0_1_0(cls, values: Any) -> Any:
        """Convert counts of mamfed 0.1.0, which have no kind, to the kind of the stage."""
        try:
            kind = TRAINED_ON[Stage(values["stage"])]
            accepted = {
                site: {**update, "num_examples": {kind: update["num_examples"]}}
                if isinstance(update["num_examples"], int)
                else update
                for site, update in values["accepted"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):  # invalid, or not read from JSON
            return values
        return {**values, "accepted": accepted}

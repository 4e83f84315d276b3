"""What a training plan says about waiting for sites and combining their updates."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mamfed_common.config import SITE_NAME, ExtensibleConfig

MAX_ADAM_STEP = 0.1

GroupName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
SiteName = Annotated[str, Field(pattern=SITE_NAME)]
Weighing = Literal["examples", "sqrt", "equal"]
Wire = Literal["float32", "compact"]
"""How weights travel, see ``mamfed_common.protocol.quantization``."""


class FederationPlan(ExtensibleConfig):
    """How sites are waited for and trusted, and how unlike ones are kept together.

    Attributes:
        min_sites: No aggregate is ever made of fewer accepted updates: what is averaged over one
            site is that site's model. A simulation, where all data lies on one machine, ignores it.
        weights: What a site weighs in the average: by the ``examples`` that it used, by their
            square root (``sqrt``), or as much as every other (``equal``). An image that stands
            beside in stage 2 counts a quarter.
        max_share: The most that one site has of the average, 0..1, as far as the number of sites
            allows it: of two sites each has half. What is cut goes to the others in proportion.
        max_share_ratio: The same limit as a multiple of an equal share, 1 over the number of
            accepted updates; the lower of the two holds. Written only where it differs.
        join_seconds: How long the first round waits for approved sites that have not come, once
            enough of them are there.
        offline_seconds: How long a round waits for a site that lost its connection.
        max_update_norm_ratio: An update whose distance from the round's starting weights is more
            than this many times the median of the round's updates is refused (three updates or
            more).
        clip_update_norm_ratio: An update that is longer than this many times the same median, and
            not refused, is shortened to it. Written only where it differs from the default.
        proximal_mu: FedProx (Li et al., 2020): pulls a site's weights towards the round's
            starting weights; 0 is FedAvg.
        local_norms: FedBN (Li et al., 2021): each site goes on with, and is measured with, the
            instance norms that it trained itself; the average has everyone's.
        norm_groups: Sites that share their instance norms with each other only, by the name of
            the group, such as ``{digital: [north], film: [south, west]}``
            (``mamfed_common.plan.norm_groups``). A site of no group has the average's. Not with
            ``local_norms``, where each site is a group of its own.
        strategy: How updates become new weights: ``trimmed_mean`` or ``median`` (Yin et al., 2018;
            every site counts the same), or an installed extension (entry point group
            ``mamfed.strategies``). Null: FedAvg with what the other keys add to it.
        server_optimiser: What the server does with a round's mean update: ``none`` takes it as it
            is (FedAvg); ``momentum`` is FedAvgM (Hsu et al., 2019), ``adam`` FedAdam (Reddi et
            al., 2021). Each stage begins with a fresh one.
        server_learning_rate: Its step. With ``momentum`` 1 is FedAvg with a memory; ``adam`` moves
            every weight by about this much a round, so at most 0.1. ``none`` has no use for it.
        server_momentum: How much of the rounds before it remembers.
        wire: How weights travel. ``float32``: bit for bit. ``compact``: in under 2/5 of the bytes,
            float16 to the sites and int8 changes back, with the bounds on what is lost that
            ``mamfed_common.protocol.quantization`` states. The final test is always of the exact
            weights.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset(
        {"strategy", "max_share_ratio", "clip_update_norm_ratio"}
    )

    min_sites: int = Field(default=3, ge=1)
    weights: Weighing = "sqrt"
    max_share: float = Field(default=0.5, gt=0, le=1)
    max_share_ratio: float = Field(default=1.25, ge=1)
    join_seconds: float = Field(default=600, ge=0)
    offline_seconds: float = Field(default=300, ge=0)
    max_update_norm_ratio: float = Field(default=10, gt=1)
    clip_update_norm_ratio: float = Field(default=1.5, ge=1)
    proximal_mu: float = Field(default=0, ge=0)
    local_norms: bool = False
    norm_groups: dict[GroupName, tuple[SiteName, ...]] = Field(default={}, max_length=16)
    strategy: str | None = None
    server_optimiser: Literal["none", "momentum", "adam"] = "none"
    server_learning_rate: float = Field(default=1, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    wire: Wire = "float32"

    @model_validator(mode="after")
    def _one_group_a_site(self) -> Self:
        if self.norm_groups and self.local_norms:
            raise ValueError("local_norms and norm_groups exclude each other; leave one out")
        if "average" in self.norm_groups:
            raise ValueError("norm_groups: average means the norms of all sites; choose a name")
        named = [site for sites in self.norm_groups.values() for site in sites]
        if twice := sorted({site for site in named if named.count(site) > 1}):
            raise ValueError(f"norm_groups: {twice[0]} stands in two places, expected in one")
        if empty := sorted(group for group, sites in self.norm_groups.items() if not sites):
            raise ValueError(f"norm_groups: {empty[0]} has no site; name some, or leave it out")
        return self

    @model_validator(mode="after")
    def _strategy_or_server_optimiser(self) -> Self:
        if self.strategy and self.server_optimiser != "none":
            raise ValueError(
                f"strategy is {self.strategy} and server_optimiser is {self.server_optimiser}; "
                "omit one of them"
            )
        return self

    @model_validator(mode="after")
    def _adam_takes_small_steps(self) -> Self:
        if self.server_optimiser == "adam" and self.server_learning_rate > MAX_ADAM_STEP:
            raise ValueError(
                f"server_learning_rate is {self.server_learning_rate:g}, by about which adam moves "
                f"every weight a round; at most {MAX_ADAM_STEP:g}, for example 0.01"
            )
        return self

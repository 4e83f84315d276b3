"""Coordinate-wise trimmed mean and median: a few wild updates cannot move the result far.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
Every site counts the same, because a share that a site can claim is a lever: ``weights`` and
``max_share`` have no effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mamfed_common.model.state_dict import State
from mamfed_server.aggregation.coordinate_wise import trimmed_mean
from mamfed_server.strategy.fedavg import FedAvg
from mamfed_server.strategy.protocol import RoundUpdates

TRIM = 0.2
"""Flower's default (``FedTrimmedAvg``, 1.41)."""


class TrimmedMean(FedAvg):
    """Average each value over the sites without its lowest and highest fifth.

    At least one value is dropped on each side where there are three sites or more.
    """

    def site_shares(self, updates: RoundUpdates) -> dict[str, float]:
        """Return the same share for every site."""
        return {site: 1 / len(updates.examples) for site in sorted(updates.examples)}

    def combine(self, updates: RoundUpdates, site_shares: Mapping[str, float]) -> State:
        """Drop the extremes of each value and average the rest."""
        cut = self.dropped(len(site_shares))
        return updates.reduce(sorted(site_shares), lambda values: trimmed_mean(values, cut))

    def dropped(self, num_sites: int) -> int:
        """Return how many values are dropped on each side."""
        return max(math.floor(TRIM * num_sites), int(num_sites >= 3))


class Median(TrimmedMean):
    """Take the median of each value; of an even number of sites, the mean of the middle two."""

    def dropped(self, num_sites: int) -> int:
        """Return how many values are dropped on each side: all but the middle one or two."""
        return (num_sites - 1) // 2

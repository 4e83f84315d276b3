"""Who is there, and what they have: the sites of a simulation, which are all there from the start.

``approved_roster.py`` has those of a federation, which come and go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from flwr.app import MessageType

from mamfed_common.domain import Part
from mamfed_common.errors import RunError, WeightsError
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.tasks import Query, SiteDescription
from mamfed_common.runtime.wording import span
from mamfed_server.aggregation.validation import read_description
from mamfed_server.run.job import Job
from mamfed_server.run.participants import evaluators, trainers
from mamfed_server.run.redo import Redo
from mamfed_server.run.requests import Nodes, SitePoller
from mamfed_server.run.site_reply import SiteReply

NODES_DEADLINE_SECONDS = 300.0


class SiteMember(NamedTuple):
    """A site that has described what it has."""

    node_id: int
    description: SiteDescription


class Roster:
    """The sites that have described themselves, by name."""

    def __init__(self, job: Job, members: dict[str, SiteMember] | None = None) -> None:
        """Start with some sites."""
        self.job = job
        self._members = members or {}

    @property
    def descriptions(self) -> dict[str, SiteDescription]:
        """What each site has, in the order of their names."""
        return {site: self._members[site].description for site in sorted(self._members)}

    def trainers(self, stage: Stage) -> Nodes:
        """Return the sites that train in a stage."""
        return self._nodes(
            trainers(self.job.plan, self.descriptions, stage, self.job.training_sites)
        )

    def evaluators(self, part: Part) -> Nodes:
        """Return the sites that score weights on a part of their data."""
        chosen = self.job.test_sites if part == "test" else self.job.validation_sites
        return self._nodes(evaluators(self.descriptions, part, chosen))

    def without_test_images(self) -> Nodes:
        """Return the sites that have no image to test with; none where the job chooses its own."""
        if self.job.test_sites is not None:
            return {}
        return self._nodes(sorted(self._members.keys() - self.evaluators("test").keys()))

    def absent(self) -> dict[str, str]:
        """Return the approved sites that have not described themselves, each with the reason."""
        return {}

    def gather(self, stage: Stage) -> None:
        """Wait until a stage can start."""

    def wait_to_redo(self, stage: Stage, redo: Redo, refused: Mapping[str, str]) -> None:
        """Wait until a round that is below its floor can be done again."""
        raise AssertionError("no site of a simulation comes back")

    def refresh(self) -> None:
        """Look who has come."""

    def ask_anew(self, site: str) -> None:
        """Have a site describe itself again: its data is not what it was."""

    def presence(self, node_id: int, online: bool) -> None:
        """Hear that a node has come or gone."""

    def close(self) -> None:
        """Want no answer any more."""

    def _nodes(self, names: list[str]) -> Nodes:
        return {name: self._members[name].node_id for name in names}


def find_sites(link: SitePoller, job: Job) -> Roster:
    """Wait for the nodes of a simulation and ask each what it has.

    Raises:
        RunError: Too few nodes came, one did not describe itself, or two have the same name.
        Stopped: The run was asked to stop.
    """
    nodes = {f"node {node_id}": node_id for node_id in _wait_for_nodes(link, job.num_nodes)}
    members: dict[str, SiteMember] = {}

    def take(name: str, reply: SiteReply) -> None:
        description = _description(name, reply)
        if description.site in members:
            raise RunError(f"two nodes say that they are site {description.site!r}")
        members[description.site] = SiteMember(nodes[name], description)

    request = pack(Query(plan=job.plan, signature=job.signature))
    deadlines = dict.fromkeys(nodes, NODES_DEADLINE_SECONDS)
    link.ask(MessageType.QUERY, request, nodes, deadlines, take)
    return Roster(job, members)


def _description(name: str, reply: SiteReply) -> SiteDescription:
    if reply.content is None:
        raise RunError(f"{name} did not describe its data: {reply.reason}")
    try:
        return read_description(reply.content)
    except WeightsError as error:
        raise RunError(f"{name} did not describe its data: {error}") from None


def _wait_for_nodes(link: SitePoller, num_nodes: int) -> list[int]:
    deadline = time.monotonic() + NODES_DEADLINE_SECONDS
    while len(node_ids := sorted(link.online())) < num_nodes:
        if time.monotonic() > deadline:
            raise RunError(
                f"{len(node_ids)} of {num_nodes} nodes came within {span(NODES_DEADLINE_SECONDS)}"
            )
        link.pause()
    return node_ids

"""The approved sites of a federation: they come when they come, restart, leave and return.

Names are those of the sites' certificates. A server that restarts asks every site anew what it has:
its nodes are new to it, and whoever was at work has dropped it (``mamfed_client.node.supernode``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import MessageType

from mamfed_common.errors import RunError, WeightsError
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.tasks import Query, SiteDescription
from mamfed_common.runtime.wording import counted
from mamfed_server.aggregation.validation import read_description
from mamfed_server.run.job import Job
from mamfed_server.run.redo import FOR_GOOD, Redo
from mamfed_server.run.requests import PendingRequest, SitePoller
from mamfed_server.run.roster import Roster, SiteMember
from mamfed_server.run.site_reply import SiteReply
from mamfed_server.run_folder.event_log import EventLog, utc_now

PATIENCE_SECONDS = 30.0
"""How long a round's start waits for a newly come site to describe itself."""
NOT_CONNECTED = "not connected"


class ApprovedRoster(Roster):
    """The sites that the coordinator has approved."""

    def __init__(self, job: Job, link: SitePoller, log: EventLog) -> None:
        """Start with no site."""
        super().__init__(job)
        assert job.names is not None, "a roster of approved sites needs their names"
        self._names = job.names
        self._link, self._log = link, log
        self._approved: Mapping[str, int] = {}
        request = pack(Query(plan=job.plan, signature=job.signature))
        self._queries = PendingRequest(link, MessageType.QUERY, request)
        self._asked_at: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._again_at: dict[str, float] = {}
        self._said: tuple[bool, dict[str, Any]] = (False, {})
        self._waiting_since = ""

    def gather(self, stage: Stage) -> None:
        """Wait until a stage can start: without limit for enough sites, then for the others.

        Raises:
            StopRequested: The run was asked to stop.
        """
        self._wait(stage, None, {})

    def wait_to_redo(self, stage: Stage, redo: Redo, refused: Mapping[str, str]) -> None:
        """Wait until a round that is below its floor can be done again.

        Args:
            stage: The round's stage.
            redo: Decides when, once enough sites are there.
            refused: Why each site that was asked has no accepted update.

        Raises:
            RunError: Sites enough will not come, because they refuse the plan or are not approved.
            StopRequested: The run was asked to stop.
        """
        online = self._link.online()
        redo.failed(self._presences(self._here(stage, online), online))
        self._wait(stage, redo, refused)

    def _wait(self, stage: Stage, redo: Redo | None, refused: Mapping[str, str]) -> None:
        join_until = None
        self._waiting_since = utc_now()
        while True:
            online = self._look()
            here = self._here(stage, online)
            may_begin = redo is None or redo.may_begin(self._presences(here, online))
            if may_begin and len(here) >= self.job.need(stage):
                now = time.monotonic()
                join_until = join_until or now + self.job.plan.federation.join_seconds
                missing = set(self._missing(online))
                if redo is not None:  # whoever has not come by now does not delay the round again
                    missing &= self._members.keys()
                if now >= join_until or not missing:
                    return
            never = self._never(stage, refused)
            if redo is not None:
                self._check_hope(stage, never)
                redo.check_patience()
            self._say_waiting(stage, here, online, redo, never)
            self._link.pause()

    def _here(self, stage: Stage, online: Mapping[int, str]) -> list[str]:
        return [site for site, node in self.trainers(stage).items() if node in online]

    def _presences(self, here: list[str], online: Mapping[int, str]) -> tuple[object, ...]:
        """Return which sites are there, and since which of their starts."""
        return tuple((site, online[self._members[site].node_id]) for site in here)

    def _never(self, stage: Stage, refused: Mapping[str, str]) -> dict[str, str]:
        """Return the approved sites that will not train in a stage, each with the reason."""
        trainers, reasons = self.trainers(stage), {**self._reasons, **refused}
        without = "has no case of this stage"
        return {
            site: without if site in self._members and site not in trainers else reasons[site]
            for site in sorted(self._approved)
            if (site in self._members and site not in trainers) or reasons.get(site) in FOR_GOOD
        }

    def _check_hope(self, stage: Stage, never: Mapping[str, str]) -> None:
        """Refuse to wait for sites that will not come."""
        need, could = self.job.need(stage), len(self._approved) - len(never)
        if could >= need:
            return
        why = "; ".join(f"{site}: {reason}" for site, reason in never.items())
        raise RunError(
            f"waiting is of no use: {stage} needs {counted(need, 'site')}, and of "
            f"{counted(len(self._approved), 'approved site')} {could} can still take part"
            f"{f' ({why})' if why else ''}"
        )

    def refresh(self) -> None:
        """Describe who has come; a silent site is waited for only once, and only shortly.

        Raises:
            Stopped: The run was asked to stop.
        """
        while True:
            self._look()
            patient_since = time.monotonic() - PATIENCE_SECONDS
            if not any(self._asked_at[site] > patient_since for site in self._queries.pending):
                return
            self._link.pause()

    def absent(self) -> dict[str, str]:
        """Return the approved sites that have not described themselves, each with the reason."""
        missing = self._missing(self._link.online())
        return {site: reason for site, reason in missing.items() if site not in self._members}

    def ask_anew(self, site: str) -> None:
        """Have a site describe itself again at the next round's start."""
        self._forget([site])

    def presence(self, node_id: int, online: bool) -> None:
        """Note that an approved site has come or gone."""
        self._approved = self._approved or self._names()
        for site, node in self._approved.items():
            if node == node_id:
                self._log.write("came" if online else "went", site=site)

    def close(self) -> None:
        """Want no description any more."""
        self._queries.close()

    def _look(self) -> Mapping[int, str]:
        """Follow the list of approved sites, ask who is new, take what has come."""
        online = self._link.online()
        self._approved = dict(self._names())
        self._forget(
            s for s, m in list(self._members.items()) if self._approved.get(s) != m.node_id
        )
        self._queries.drop(s for s in list(self._queries.pending) if s not in self._approved)
        now = time.monotonic()
        for site, node_id in self._approved.items():
            known = site in self._members or site in self._queries.pending
            if not known and node_id in online and now >= self._again_at.get(site, 0):
                self._queries.add(site, node_id, self.job.plan.pretraining.deadline_seconds)
                self._asked_at[site] = now
        self._queries.poll(self._take)
        return online

    def _take(self, site: str, reply: SiteReply) -> None:
        try:
            description = self._read(site, reply)
        except WeightsError as error:
            self._again_at[site] = time.monotonic() + self.job.query_again_seconds
            if self._reasons.get(site) != str(error):
                self._log.write("not described", site=site, reason=str(error))
            self._reasons[site] = str(error)
            return
        self._reasons.pop(site, None)
        self._members[site] = SiteMember(self._approved[site], description)
        self._log.write("described", site=site)

    def _read(self, site: str, reply: SiteReply) -> SiteDescription:
        if reply.content is None:
            raise WeightsError(reply.reason)
        description = read_description(reply.content)
        if description.site != site:
            raise WeightsError("calls itself by another name than its certificate does")
        return description

    def _forget(self, sites: Iterable[str]) -> None:
        for site in sites:
            self._members.pop(site, None)

    def _missing(self, online: Mapping[int, str]) -> dict[str, str]:
        """Return the approved sites that cannot take part yet, and why."""
        return {
            site: self._reasons.get(site, "has not described its data yet")
            if node_id in online
            else NOT_CONNECTED
            for site, node_id in sorted(self._approved.items())
            if site not in self._members or node_id not in online
        }

    def _say_waiting(
        self,
        stage: Stage,
        here: list[str],
        online: Mapping[int, str],
        redo: Redo | None,
        never: Mapping[str, str],
    ) -> None:
        facts = {
            "stage": str(stage),
            "need": self.job.need(stage),
            "ready": here,
            "missing": self._missing(online),
            "since": self._waiting_since,
        }
        if len(self._approved) - len(never) < self.job.need(stage):
            facts["of_no_use"] = dict(never)
        paused = redo is not None and redo.paused
        if (paused, facts) != self._said:
            self._said = (paused, facts)
            self._log.write("paused" if paused else "waiting", **facts)

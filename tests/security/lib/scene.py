"""Where the attempts take place: a coordinator, two approved sites and a revoked one, all scripts.

``mallory`` attacks; ``victim`` is attacked, and its node key is known to mallory. The coordinator
has asked both something that they have not answered yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.node_pb2 import Node
from tests.security.lib.door import Credentials, Door
from tests.unit.server.certificates import public_pem


@dataclass
class Scene:
    """A coordinator under attack.

    Attributes:
        door: Its port.
        pid: Its process; 0 if it is this one.
        mallory: An approved site, which attacks.
        victim: Another approved site.
        revoked: A site that was approved and revoked.
        folder: Holds whatever an attempt makes.
        has_left: Returns whether the coordinator takes the victim for disconnected.
        log: The coordinator's log; None if it has none.
        seed: Seed of all that is random.
        node_ids: The nodes of the sites, by name.
        asked: The messages that the coordinator has sent to the sites, by name.
        kept: Whatever one attempt leaves for a later one.
    """

    door: Door
    pid: int
    mallory: Credentials
    victim: Credentials
    revoked: Credentials
    folder: Path
    has_left: Callable[[], bool]
    log: Path | None = None
    seed: int = 0
    node_ids: dict[str, int] = field(default_factory=dict)
    asked: dict[str, PullMessagesResponse] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def connect(self) -> None:
        """Activate the nodes of both sites."""
        for who in (self.mallory, self.victim):
            request = ActivateNodeRequest(public_key=public_pem(who.node), heartbeat_interval=600)
            answer = self.door.call(who, "activate-node", request, ActivateNodeResponse())
            self.node_ids[who.name] = answer.node_id

    def fetch(self) -> bool:
        """Fetch what the sites are asked; return whether both were asked something."""
        for who in (self.mallory, self.victim):
            if who.name not in self.asked:
                request = PullMessagesRequest(node=self.node(who))
                answer = self.door.call(who, "pull-messages", request, PullMessagesResponse())
                if answer.messages_list:
                    self.asked[who.name] = answer
        return len(self.asked) == 2

    def node(self, who: Credentials) -> Node:
        """Return a site's node."""
        return Node(node_id=self.node_ids[who.name])


class Attempt(NamedTuple):
    """One attempt.

    Attributes:
        name: Its name.
        run: Makes it; returns what broke, nothing if it was held.
    """

    name: str
    run: Callable[[Scene], str]

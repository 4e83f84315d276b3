"""The questions of ``mamfed-server init --guided``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.documents import validated
from mamfed_common.runtime.guided import ask, ask_yes, check_somebody_answers
from mamfed_common.runtime.terminal import console
from mamfed_server.settings import ServerSettings, settings_text

LOCAL = "127.0.0.1"


class Answers(NamedTuple):
    """What was answered, as the options of ``init``."""

    name: str
    host: list[str]
    port: int
    bind: str
    contact: str


def answers(name: str, host: list[str], port: int, bind: str, contact: str) -> Answers:
    """Ask six questions; given options are the defaults.

    Raises:
        SetupError: Nobody can answer, or no answer was valid.
        MamfedError: The last answer was no.
    """
    check_somebody_answers()
    given: dict[str, Any] = {"name": "federation", "hosts": ["localhost"]}

    def checked(key: str, value: Callable[[str], Any]) -> Callable[[str], Any]:
        def check(text: str) -> Any:
            validated(ServerSettings, {**given, key: value(text)}, "not possible")
            return value(text)

        return check

    given["name"] = ask("1/6 Name of the federation?", name, checked("name", str))
    given["hosts"] = ask(
        "2/6 Names or addresses at which sites reach this server (spaces between them)?",
        " ".join(host) or socket.getfqdn(),
        checked("hosts", str.split),
    )
    given["port"] = ask("3/6 Port?", str(port), checked("port", str))
    given["bind"] = ask(
        f"4/6 Local address to listen on ({LOCAL} to try it on this machine alone)?",
        bind,
        checked("bind", str),
    )
    given["contact"] = ask(
        "5/6 Whom should sites call to compare fingerprints (name, number)?",
        contact,
        checked("contact", str),
    )
    settings = validated(ServerSettings, given, "mamfed-server init")
    console().print(f"\nserver.yaml will be:\n\n{settings_text(settings)}")
    if not ask_yes("6/6 Create it?", default=True):
        raise MamfedError("not confirmed, so nothing was created")
    hosts = list(settings.hosts)
    return Answers(settings.name, hosts, settings.port, settings.bind, settings.contact)

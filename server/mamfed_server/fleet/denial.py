"""A request that is denied, and its answer: one line of JSON. Nothing that was sent is repeated."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestDenied(Exception):
    """A request that is denied before it reaches Flower."""

    def __init__(self, status: int, detail: str) -> None:
        """Deny with an HTTP status and one line of text."""
        super().__init__(detail)
        self.status = status
        self.detail = detail


async def send_denial(send: Send, denied: RequestDenied, *, close: bool = True) -> None:
    """Answer a denied request.

    Args:
        send: Sends the answer.
        denied: Why it was denied.
        close: Whether to close the connection, as long as its body may not have been read.
    """
    body = json.dumps({"detail": denied.detail}).encode()
    headers = [(b"content-type", b"application/json")]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""A page of the kit behind a real uvicorn on loopback, for tests of any role."""

import threading
from contextlib import contextmanager
from pathlib import Path

import httpx

from mamfed_common.web.pages import Look, Pages
from mamfed_common.web.serving import Listen, prepare


class Served:
    """A running server.

    Attributes:
        prepared: What the kit prepared.
        base: Scheme, host and port.
    """

    def __init__(self, prepared):
        self.prepared = prepared
        self.base = prepared.address.partition("/sign-in")[0]

    @contextmanager
    def client(self, *, signed_in=True, **options):
        """Yield a browser-like client, signed in by the one-time address."""
        with httpx.Client(base_url=self.base, timeout=10, **options) as client:
            if signed_in:
                answer = client.get(self.prepared.door.address.current)
                assert answer.status_code == 303, answer.text
            yield client


@contextmanager
def served(routes, home: Path, listen=None, pages=None):
    """Serve routes in a thread until the block ends."""
    pages = pages or Pages("mamfed_common.web", Look("Test", "test", [("/", "First")]))
    with prepare(pages, routes, listen or Listen(), home) as prepared:
        thread = threading.Thread(target=prepared.run)
        thread.start()
        try:
            yield Served(prepared)
        finally:
            prepared.server.should_exit = True
            thread.join(15)
            assert not thread.is_alive()

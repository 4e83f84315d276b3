"""A registry that cannot be read for a while: as it was for seconds, then nobody; never fatal."""

import errno
import os
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.server.homes import new_coordinator, new_site, node_of, request_of

from mamfed_common.errors import LinkError
from mamfed_common.runtime import documents
from mamfed_common.security.certificates import parse_certificate
from mamfed_server.admission import registry
from mamfed_server.admission.approval import approve, revoke
from mamfed_server.admission.registry import STALE_SECONDS, Registry


class Known:
    """A coordinator's registry with one site."""

    def __init__(self, folder, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(registry.time, "monotonic", lambda: self.now)
        self.home, self.site = new_coordinator(folder / "coordinator"), new_site(folder / "a")
        welcome = approve(self.home, request_of(self.site))
        self.der = parse_certificate(welcome.certificate, "test").public_bytes(Encoding.DER)
        self.registry = Registry(self.home)

    def check(self):
        return self.registry.check(self.der, node_of(self.site))


@pytest.fixture
def known(tmp_path, monkeypatch):
    return Known(tmp_path, monkeypatch)


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number), "sites")

    return fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_a_folder_that_cannot_be_read_admits_nobody_after_some_seconds(
    known, monkeypatch, caplog, number
):
    assert known.check().site == "a"
    with monkeypatch.context() as broken:
        broken.setattr(registry, "_stamps", failing(number))
        for _ in range(3):
            known.now += STALE_SECONDS / 4
            assert known.check().site == "a"
        revoke(known.home, "a")
        known.now += STALE_SECONDS
        with pytest.raises(OSError, match="sites"):
            known.check()
        assert list(known.registry.entries()) == ["a"]
    assert len([r for r in caplog.records if "cannot read the registry now" in r.message]) == 1
    known.now += 2
    with pytest.raises(LinkError, match="revoked"):
        known.check()


def test_a_file_that_cannot_be_opened_now_is_read_later(known, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(documents, "read_text", failing(errno.EMFILE))
        with pytest.raises(OSError, match="sites"):
            known.check()
    known.now += 2
    assert known.check().site == "a"


def test_a_certificate_that_expires_while_it_is_connected_is_refused(known, monkeypatch):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=400)

    assert known.check().site == "a"
    monkeypatch.setattr(registry, "datetime", Later)
    with pytest.raises(LinkError, match=r"certificate of a is valid until \d{4}-.* UTC; renew it"):
        known.check()

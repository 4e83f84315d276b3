"""Who loses a connection when there are too many."""

import pytest

from mamfed_common.errors import LinkError
from mamfed_server.fleet import connections
from mamfed_server.fleet.connections import (
    CONNECTIONS_PER_SITE,
    Connections,
    address_of,
    room_for_connections,
)


class Lines:
    """Connections by name, and which of them were closed."""

    def __init__(self, total=80, per_address=80):
        self.now, self.closed, self.by_name = 0.0, [], {}
        self.open = Connections(total, per_address, lambda: self.now)

    def accept(self, name, address="192.0.2.1"):
        self.now += 1
        self.by_name[name] = self.open.accept(address, lambda: self.closed.append(name))
        return self.by_name[name]

    def site(self, name, site, address="192.0.2.1", idle=True):
        connection = self.accept(name, address)
        connection.is_idle = lambda: idle
        return self.open.identify(connection, site)


def test_an_address_keeps_its_latest_strangers():
    lines = Lines(total=400, per_address=8)
    for number in range(4):
        lines.accept(number)
    assert lines.closed == [0, 1]
    assert len(lines.open) == 2


def test_the_address_with_the_most_strangers_loses_its_oldest():
    lines = Lines(total=16, per_address=1000)
    for number in range(3):
        lines.accept(number, "192.0.2.1")
    lines.accept("other", "192.0.2.2")
    lines.accept("honest", "192.0.2.3")
    assert lines.closed == [0]
    assert lines.open.turned_away == 1


def test_strangers_never_take_a_sites_room():
    lines = Lines(total=16, per_address=16)
    assert lines.site("north", "north")
    for number in range(1000):
        lines.accept(number, f"192.0.2.{number % 250}")
    assert "north" not in lines.closed
    assert lines.site("south", "south")


def test_a_site_loses_its_oldest_idle_connection():
    lines = Lines()
    for number in range(CONNECTIONS_PER_SITE):
        assert lines.site(number, "north", idle=number == 3)
    assert lines.site("latest", "north")
    assert lines.closed == [3]


def test_a_site_with_too_many_requests_under_way_gets_no_more():
    lines = Lines()
    for number in range(CONNECTIONS_PER_SITE):
        assert lines.site(number, "north", idle=False)
    assert not lines.site("latest", "north")
    assert lines.closed == ["latest"]


def test_behind_one_address_the_site_with_the_most_makes_room_for_another():
    lines = Lines(per_address=16)
    for number in range(12):
        assert lines.site(number, "greedy", idle=False)
    assert lines.site("honest", "north", idle=False)
    assert lines.closed == [0]


def test_a_closed_connection_is_not_counted():
    lines = Lines()
    lines.open.closed(lines.accept(0))
    assert len(lines.open) == 0
    assert not lines.open.identify(lines.by_name[0], "north")


@pytest.mark.parametrize(
    ("host", "holder"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_ipv6_addresses_are_counted_by_the_network_that_one_holder_has(host, holder):
    assert address_of(host) == holder


def test_a_limit_of_open_files_that_is_too_low_is_an_error(monkeypatch):
    monkeypatch.setattr(connections, "raise_file_limit", lambda: 100)
    with pytest.raises(LinkError, match=r"found a limit of 100 open files, expected at least \d+"):
        room_for_connections()


def test_descriptors_are_left_for_the_servers_own_files(monkeypatch):
    monkeypatch.setattr(connections, "raise_file_limit", lambda: 1024)
    assert 500 < room_for_connections() < 1024 - connections.RESERVED_DESCRIPTORS

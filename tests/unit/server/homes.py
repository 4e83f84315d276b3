"""Homes of a coordinator and of sites, and what a site asks for."""

from typer.testing import CliRunner

from mamfed_client.site import identity
from mamfed_client.site.settings import SiteHome
from mamfed_common.security.signing import node_fingerprint
from mamfed_server.cli.main import app
from mamfed_server.settings import ServerHome


def new_coordinator(path):
    arguments = ["init", str(path), "--name", "North", "--host", "localhost"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return ServerHome(path)


def new_site(path):
    home = SiteHome(path)
    identity.make_keys(home)
    return home


def request_of(site, name="a", contact=""):
    return identity.build_request(site, name, contact)


def node_of(site):
    return node_fingerprint(identity.load_node_key(site).public_key())

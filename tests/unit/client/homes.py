"""Homes of a coordinator and of sites, made by their own commands."""

from typer.testing import CliRunner

import mamfed_client.cli.main
import mamfed_server.cli.main
from mamfed_client.site.settings import SiteHome
from mamfed_server.settings import ServerHome

runner = CliRunner()


def run_client(*arguments, **settings):
    return runner.invoke(mamfed_client.cli.main.app, [str(a) for a in arguments], **settings)


def ok(result):
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def new_coordinator(path, name="North"):
    arguments = ["init", str(path), "--name", name, "--host", "localhost", "--port", "9555"]
    ok(runner.invoke(mamfed_server.cli.main.app, arguments))
    return ServerHome(path)


def new_site(path, name="a"):
    (path.parent / "data").mkdir(exist_ok=True)
    ok(run_client("init", path, "--name", name, "--data", path.parent / "data"))
    return SiteHome(path)

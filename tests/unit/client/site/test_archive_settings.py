"""The archive of ``site.yaml``: nothing unsafe by default, and paths start at the home."""

import pytest
from pydantic import ValidationError

from mamfed_client.site.archive_settings import ArchiveSettings
from mamfed_client.site.settings import SiteHome, load_site_settings

DIMSE = {"host": "pacs", "called": "PACS"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "expected dicomweb or dimse"),
        ({"dicomweb": {"url": "http://pacs.example/"}}, "use https"),
        ({"dicomweb": {"url": "https://user:secret@pacs.example/"}}, "no user"),
        ({"dicomweb": {"url": "ftp://pacs.example/"}}, "expected https"),
        ({"dicomweb": {"url": "https://pacs", "user": "me"}}, "set both or neither"),
        ({"dimse": DIMSE | {"called": "SEVENTEEN LETTERS"}}, "called"),
        ({"dimse": DIMSE | {"called": "BACK\\SLASH"}}, "called"),
        ({"dimse": DIMSE, "hours": "20-6"}, "local times"),
        ({"dimse": DIMSE, "move": {"callers": []}}, "callers"),
        ({"dicomweb": {"url": "https://pacs"}, "move": {"callers": ["PACS"]}}, "move needs dimse"),
        ({"dimse": DIMSE, "move": {"callers": ["P"], "tls": {"ca_file": "x"}}}, "certificate"),
    ],
)
def test_what_cannot_be_used_is_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        ArchiveSettings.model_validate(settings)


@pytest.mark.parametrize("url", ["https://pacs", "http://127.0.0.1:8042/d", "http://localhost/"])
def test_https_and_this_machine_are_accepted(url):
    assert ArchiveSettings.model_validate({"dicomweb": {"url": url}}).hours is None


def test_paths_start_at_the_home(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "name: north\ndata: [{name: a, folder: a}]\narchive:\n"
        "  dicomweb: {url: https://pacs, user: me, password_file: keys/pacs}\n"
        "  dimse: {host: pacs, called: PACS, tls: {ca_file: certs/ca.pem}}\n"
    )
    archive = load_site_settings(SiteHome(tmp_path)).archive
    assert archive.dicomweb.password_file == tmp_path / "keys/pacs"
    assert archive.dimse.tls.ca_file == tmp_path / "certs/ca.pem"
    assert archive.move is None

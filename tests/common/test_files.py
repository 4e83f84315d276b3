"""Whose the files are that mamfed writes."""

import os
import stat

import pytest

from mamfed_common.files import os_error_line, private_directory, write_atomic
from mamfed_common.lock import only_one, short_lock
from mamfed_server.lines import append_line

SOMEBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")


@pytest.fixture
def folder(tmp_path):
    """The folder of a service's user, in which somebody works under sudo."""
    path = tmp_path / "home"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, SOMEBODY, SOMEBODY)
    return path


def lock(path):
    with only_one(path, "this"):
        pass


def lock_shortly(path):
    with short_lock(path):
        pass


@needs_root
@pytest.mark.parametrize(
    "make",
    [
        lambda path: write_atomic(path, "x"),
        lambda path: append_line(path, "x"),
        lambda path: private_directory(path / "deeper" / "still"),
        lock,
        lock_shortly,
    ],
)
def test_what_the_superuser_writes_belongs_to_the_folders_owner(folder, make):
    make(folder / "made")
    for path in folder.rglob("*"):
        found = path.stat()
        assert found.st_uid == found.st_gid == SOMEBODY, path
        assert stat.S_IMODE(found.st_mode) in (0o600, 0o700)


@needs_root
def test_a_file_that_is_written_anew_keeps_its_owner(folder):
    (folder / "site.pem").write_text("old")
    os.chown(folder / "site.pem", SOMEBODY, SOMEBODY)
    write_atomic(folder / "site.pem", "new")
    assert (folder / "site.pem").stat().st_uid == SOMEBODY


def test_ones_own_files_stay_ones_own(tmp_path):
    write_atomic(tmp_path / "made", "x")
    assert (tmp_path / "made").stat().st_uid == os.geteuid()


@needs_root
def test_what_may_not_be_read_is_named_with_its_owner(folder):
    said = os_error_line(PermissionError(13, "Permission denied", str(folder / "keys" / "tls.key")))
    assert said.startswith(f"{folder}/keys/tls.key: Permission denied; {folder} belongs to ")
    assert said.endswith(", you are root")


def test_ones_own_file_is_named_without_an_owner(tmp_path):
    error = PermissionError(13, "Permission denied", str(tmp_path / "x"))
    assert os_error_line(error) == f"{tmp_path}/x: Permission denied"

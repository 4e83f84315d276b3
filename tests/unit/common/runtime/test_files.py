"""Whose the files are that mamfed writes, and why one cannot be read or written."""

import errno
import os
import ssl
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mamfed_common.errors import MamfedError, OutputError
from mamfed_common.plan import read_plan
from mamfed_common.runtime.files import os_error_line, private_directory, write_atomic
from mamfed_common.runtime.lock import exclusive_lock, short_lock
from mamfed_common.runtime.output_checks import check_folder, check_folder_of
from mamfed_common.security.certificates import pair_reason, read_certificate
from mamfed_common.security.keys import new_ec_key, write_key
from mamfed_server.run_folder.jsonl import append_line

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
    with exclusive_lock(path, "this"):
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


def test_one_place_words_what_the_system_refuses():
    """A reader that takes the system's words alone names neither whose a file is nor what to do."""
    own = {
        "common/mamfed_common/runtime/files.py",
        "common/mamfed_common/runtime/lock.py",  # a file system without locks has advice of its own
        "client/mamfed_client/node/connection_errors.py",  # the network's refusals
    }
    root = Path(__file__).parents[4]
    found = {
        path.relative_to(root).as_posix()
        for role in ("common", "client", "server", "simulations")
        for path in (root / role).rglob("*.py")
        if "error.strerror" in path.read_text()
    }
    assert found == own


@pytest.mark.parametrize("read", [read_plan, read_certificate])
def test_a_document_that_is_none_or_cannot_be_read_says_why(tmp_path, read):
    with pytest.raises(MamfedError, match=r"read.*: No such file or directory$"):
        read(tmp_path / "there is none")
    (tmp_path / "text").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MamfedError, match="not"):
        read(tmp_path / "text")


def test_an_error_of_openssl_gets_no_advice_of_the_file_system_s(tmp_path):
    """Its number for keys that do not fit is that of a stale share (116)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in ("one", "two"):
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / f"{name}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, start, start + timedelta(days=1)
    ).sign(key, SHA256())
    (tmp_path / "two.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    with pytest.raises(ssl.SSLError) as caught:
        context.load_cert_chain(tmp_path / "two.pem", tmp_path / "one.key")
    assert caught.value.errno == errno.ESTALE
    assert pair_reason(tmp_path / "two.pem", caught.value) == "KEY_VALUES_MISMATCH"


def test_new_parents_are_private_under_any_umask(tmp_path):
    former = os.umask(0)
    try:
        private_directory(tmp_path / "cache" / "mamfed" / "samples" / "ab")
    finally:
        os.umask(former)
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


@pytest.mark.parametrize(
    "write",
    [
        private_directory,
        lambda folder: private_directory(folder / "new"),
        lambda folder: write_atomic(folder / "file", "x"),
        lambda folder: check_folder_of(folder / "file"),
        lambda folder: check_folder(folder, lambda _: True, "x"),
        lambda folder: check_folder(folder / "new", lambda _: True, "x"),
        lambda folder: write_key(folder / "key", new_ec_key()),
    ],
)
def test_a_folder_in_which_anyone_may_replace_files_is_refused(tmp_path, write):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(
        (OSError, OutputError), match=f"every user may write to {folder}.*chmod o-w"
    ):
        write(folder)
    assert not list(folder.iterdir())


def test_a_mount_without_permissions_is_used(tmp_path, monkeypatch):
    """Such as a Windows disk: every file in it shows 0777 and chmod changes nothing."""
    found = os.fstat

    def without_modes(descriptor):
        status = list(found(descriptor))
        status[0] |= 0o777
        return os.stat_result(status)

    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "fstat", without_modes)
    write_atomic(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_a_sticky_folder_such_as_tmp_and_one_of_a_group_are_used(tmp_path):
    for mode in (0o1777, 0o775):
        tmp_path.chmod(mode)
        write_atomic(private_directory(tmp_path / f"{mode}") / "file", "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")
def test_folders_of_two_threads_all_go_to_the_owner(tmp_path, monkeypatch):
    def slowly(path, *owner, chown=os.chown):
        time.sleep(0.1)
        chown(path, *owner)

    os.chown(tmp_path, 12345, 12345)
    monkeypatch.setattr(os, "chown", slowly)
    folders = [tmp_path / "samples" / name for name in ("0d", "1e")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(private_directory, folders))
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {12345}

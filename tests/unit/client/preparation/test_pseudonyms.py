import hashlib
import hmac
import stat

import pytest

from mamfed_client.preparation.pseudonyms import (
    default_secret_path,
    pseudonym,
    read_key,
    site_secret,
)
from mamfed_common.errors import DataError


def test_the_secret_is_made_once_and_for_its_owner_only():
    secret = site_secret()
    assert len(secret) == 32
    assert stat.S_IMODE(default_secret_path().stat().st_mode) == 0o600
    assert site_secret() == secret
    assert list(default_secret_path().parent.glob(".secret.*")) == []


def test_two_sites_have_two_secrets(tmp_path):
    assert site_secret(tmp_path / "a") != site_secret(tmp_path / "b")


def test_a_secret_that_others_may_read_is_refused():
    site_secret()
    default_secret_path().chmod(0o640)
    with pytest.raises(DataError, match="mode 0640"):
        site_secret()


def test_another_file_is_not_taken_for_a_key(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "notes.txt").chmod(0o600)
    with pytest.raises(DataError, match=r"5 bytes, but a key has 32"):
        read_key(tmp_path / "notes.txt", "key")


def test_a_key_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(DataError, match="no such key file"):
        read_key(tmp_path / "key", "key", make=False)
    assert not (tmp_path / "key").exists()


def test_a_pseudonym_is_hmac_sha256_of_the_words_and_their_lengths():
    message = b"\0\0\0\0\0\0\0\x07patient" + b"\0\0\0\0\0\0\0\x03P-1"
    expected = hmac.new(b"s" * 32, message, hashlib.sha256).hexdigest()[:32]
    assert pseudonym(b"s" * 32, "patient", "P-1") == expected


def test_words_cannot_run_into_one_another():
    assert pseudonym(b"s" * 32, "ab", "c") != pseudonym(b"s" * 32, "a", "bc")

import base64
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_ssh_private_key,
)

from mamfed_common.errors import SetupError
from mamfed_common.security.keys import new_ec_key, openssh_text, parse_openssh, read_key, write_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "a.key"


@pytest.mark.parametrize("openssh", [True, False])
def test_a_key_comes_back_and_only_its_owner_may_read_it(path, openssh):
    key = new_ec_key()
    write_key(path, key, openssh=openssh)
    assert read_key(path, EllipticCurvePrivateKey).public_key() == key.public_key()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten(path):
    write_key(path, new_ec_key())
    content = path.read_bytes()
    with pytest.raises(SetupError, match="never overwritten"):
        write_key(path, new_ec_key())
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(path, mode):
    write_key(path, new_ec_key())
    path.chmod(mode)
    with pytest.raises(SetupError, match=rf"mode {mode:04o}\): chmod 600 .*a\.key$"):
        read_key(path, EllipticCurvePrivateKey)


def test_a_missing_key_is_named(path):
    with pytest.raises(SetupError, match=r"a\.key: the key cannot be read: No such file"):
        read_key(path, EllipticCurvePrivateKey)


def test_a_key_of_another_kind_or_curve_is_refused(path):
    for number, key in enumerate([Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())]):
        other = path.with_name(f"{number}.key")
        write_key(other, key)
        with pytest.raises(SetupError, match="expected EC P-384"):
            read_key(other, EllipticCurvePrivateKey)
    write_key(path, new_ec_key())
    with pytest.raises(SetupError, match="expected Ed25519"):
        read_key(path, Ed25519PrivateKey)


def test_the_content_of_a_damaged_key_is_not_in_the_message(path):
    write_key(path, new_ec_key())
    text = path.read_text()
    path.write_text(text[:-60])
    with pytest.raises(SetupError, match="restore it from backup") as caught:
        read_key(path, EllipticCurvePrivateKey)
    assert text[40:60] not in str(caught.value)


def test_a_key_with_a_password_is_refused(path):
    write_key(path, new_ec_key())
    secret = BestAvailableEncryption(b"secret")
    path.write_bytes(new_ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    with pytest.raises(SetupError, match="damaged, or protected by a password"):
        read_key(path, EllipticCurvePrivateKey)


def test_a_public_key_comes_back_from_its_line():
    key = new_ec_key().public_key()
    assert parse_openssh(openssh_text(key), EllipticCurvePublicKey, "x") == key
    assert parse_openssh(openssh_text(key) + " a comment", EllipticCurvePublicKey, "x") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "é",
        openssh_text(generate_private_key(SECP256R1()).public_key()),
        openssh_text(rsa.generate_private_key(65537, 2048).public_key()),
        openssh_text(Ed25519PrivateKey.generate().public_key()),
    ],
    ids=["empty", "no key", "short", "not ascii", "P-256", "RSA", "Ed25519"],
)
def test_any_other_line_is_refused_by_the_name_of_its_source(text):
    with pytest.raises(SetupError, match=r"^request's node key: "):
        parse_openssh(text, EllipticCurvePublicKey, "request's node key")


def test_a_plan_key_must_be_ed25519():
    with pytest.raises(SetupError, match="expected Ed25519"):
        parse_openssh(openssh_text(new_ec_key().public_key()), Ed25519PublicKey, "plan key")


def test_a_bit_of_an_openssh_key_that_makes_another_key_is_damage(tmp_path):
    """The library takes the private number alone; the public key beside it must be its own."""
    path = tmp_path / "node.key"
    write_key(path, new_ec_key(), openssh=True)
    lines = path.read_bytes().splitlines()
    body = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    body[-20] ^= 1  # within the private number, which is last, before comment and padding
    path.write_bytes(b"\n".join([lines[0], base64.b64encode(bytes(body)), lines[-1], b""]))
    load_ssh_private_key(path.read_bytes(), None)
    with pytest.raises(SetupError, match="damaged"):
        read_key(path, EllipticCurvePrivateKey)

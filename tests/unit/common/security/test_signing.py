import base64
import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mamfed_common.plan import TrainingPlan
from mamfed_common.security.keys import new_ec_key, openssh_text, read_key, write_key
from mamfed_common.security.signing import fingerprint, is_signed, node_fingerprint, sign_plan

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def test_a_plan_is_signed_by_its_key_and_by_no_other():
    plan = TrainingPlan()
    signature = sign_plan(KEY, plan)
    assert is_signed(plan, signature, [KEY.public_key()])
    assert is_signed(plan, signature, [OTHER.public_key(), KEY.public_key()])
    assert not is_signed(plan, signature, [OTHER.public_key()])
    assert not is_signed(plan, signature, [])


def test_a_signature_is_of_one_plan():
    signature = sign_plan(KEY, TrainingPlan())
    assert not is_signed(TrainingPlan(seed=1), signature, [KEY.public_key()])


def test_what_is_signed_names_its_purpose_and_the_plan():
    plan = TrainingPlan()
    message = b"mamfed plan v1\n" + plan.sha256().encode()
    assert base64.b64decode(sign_plan(KEY, plan)) == KEY.sign(message)
    bare = base64.b64encode(KEY.sign(plan.sha256().encode())).decode()
    assert not is_signed(plan, bare, [KEY.public_key()])


@pytest.mark.parametrize("signature", ["", "?", "AAAA", "é", "A" * 88, " "])
def test_anything_else_is_no_signature(signature):
    assert not is_signed(TrainingPlan(), signature, [KEY.public_key()])


def test_a_signature_with_something_appended_is_none():
    signature = sign_plan(KEY, TrainingPlan())
    assert not is_signed(TrainingPlan(), signature + "\n", [KEY.public_key()])


def test_a_fingerprint_is_half_of_sha256_in_groups():
    # sha256(b"abc") = ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 ... (FIPS 180-2, B.1)
    assert fingerprint(b"abc") == "BA78 16BF 8F01 CFEA 4141 40DE 5DAE 2223"


def test_a_node_is_named_as_openssl_names_its_key(tmp_path):
    key = new_ec_key()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    command = ["openssl", "pkey", "-pubin", "-in", tmp_path / "key.pem", "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True).stdout
    assert node_fingerprint(key.public_key()) == hashlib.sha256(der).hexdigest()


def test_ssh_keygen_reads_a_node_key(tmp_path):
    key = new_ec_key()
    write_key(tmp_path / "keys" / "node.key", key, openssh=True)
    command = ["ssh-keygen", "-y", "-f", tmp_path / "keys" / "node.key"]
    try:
        printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert printed.split()[:2] == openssh_text(key.public_key()).split()


def test_a_signing_key_comes_back_from_its_file(tmp_path):
    write_key(tmp_path / "plan.key", KEY)
    again = read_key(tmp_path / "plan.key", Ed25519PrivateKey)
    assert is_signed(TrainingPlan(), sign_plan(again, TrainingPlan()), [KEY.public_key()])

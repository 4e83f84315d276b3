"""One reader for all text that people write."""

import pytest

from mamfed_common.config import Config
from mamfed_common.errors import PlanError, SetupError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.runtime.documents import read_json, read_yaml
from mamfed_common.runtime.text import NotTextError, decode_text, plain
from mamfed_common.security.certificates import read_certificate
from mamfed_common.security.keys import new_ec_key, read_key, write_key

BOM = b"\xef\xbb\xbf"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


class Named(Config):
    name: str


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("read", "text"), [(read_json, '{"name": "Zürich"}'), (read_yaml, "name: Zürich\n")]
)
def test_documents_are_read_however_an_editor_saved_them(tmp_path, encoding, read, text):
    (tmp_path / "document").write_bytes(text.encode(encoding))
    assert read(Named, tmp_path / "document").name == "Zürich"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_plan_is_the_same_plan_however_an_editor_saved_it(tmp_path, encoding):
    text = TrainingPlan().to_yaml().replace("\n", "\r\n")
    (tmp_path / "plan.yaml").write_bytes(text.encode(encoding))
    assert read_plan(tmp_path / "plan.yaml").sha256() == TrainingPlan().sha256()


def test_odd_blanks_in_yaml_are_blanks(tmp_path):
    (tmp_path / "site.yaml").write_text("name:\u00a0north\u202f\n")
    assert read_yaml(Named, tmp_path / "site.yaml").name == "north"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("name: a\nname: Zürich".encode("cp1252"), r"not UTF-8 text \(line 2\); save the file"),
        ("name: a".encode("utf-16-le"), "UTF-16 without its mark"),
        (BOM + b"\xff", "line 1"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_do_and_quotes_nothing(tmp_path, data, words):
    (tmp_path / "plan.yaml").write_bytes(data)
    with pytest.raises(PlanError, match=words) as caught:
        read_plan(tmp_path / "plan.yaml")
    assert "rich" not in str(caught.value)


def test_a_second_mark_is_no_text():
    assert decode_text(BOM + BOM + b"a") == "a"


def test_half_a_character_of_utf_16_is_no_text():
    with pytest.raises(NotTextError, match="save the file"):
        decode_text(b"\xff\xfea")


def test_a_key_with_a_mark_is_read(tmp_path):
    for name, openssh in (("node.key", True), ("tls.key", False)):
        key = new_ec_key()
        write_key(tmp_path / name, key, openssh=openssh)
        (tmp_path / name).write_bytes(BOM + (tmp_path / name).read_bytes())
        assert read_key(tmp_path / name, type(key)).public_key() == key.public_key()


def test_what_is_no_certificate_is_named(tmp_path):
    (tmp_path / "ca.pem").write_bytes(BOM + b"no certificate")
    with pytest.raises(SetupError, match=r"ca\.pem: not a certificate in PEM"):
        read_certificate(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("BI-RADS\u00a02", "BI-RADS 2"),
        ("\u200b\ufeffmalig\u00adnant\u200e", "malignant"),
        ("\uff2c\uff25\uff26\uff34", "LEFT"),
        ("Mu\u0308ller \t x", "Müller x"),
    ],
)
def test_plain_text_is_what_one_would_type(text, typed):
    assert plain(text) == typed

import json

import pytest

from mamfed_common.runtime.seal import sealed, unsealed


@pytest.mark.parametrize("values", [{}, {"a": 1}, {"a": {"b": [1, "}"]}, "é": None}])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_sealed_object_comes_back_and_is_still_json(values, indent):
    text = sealed(json.dumps(values, indent=indent, ensure_ascii=False))
    assert json.loads(unsealed(text)) == values
    assert json.loads(unsealed(text + "\n")) == values
    assert json.loads(text).keys() == {*values, "sha256"}
    assert len(text.splitlines()) == 1 or indent


def test_what_an_earlier_version_wrote_has_no_seal():
    assert unsealed('{"a": 1}') == '{"a": 1}'


def test_every_changed_character_is_refused_or_leaves_a_key_that_nobody_knows():
    text = sealed('{"a": 1, "b": "x"}')
    for at in range(len(text)):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        try:
            found = json.loads(unsealed(changed))
        except ValueError:
            continue
        assert found.keys() - {"a", "b"}, changed

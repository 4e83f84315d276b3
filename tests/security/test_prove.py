"""The runner of all suites, with made-up suites."""

import pytest
from tests.security.lib import prove

SUITES = {
    "holds": "print('seed 7'); print('2 attempts, 2 held, 0 broke'); print('later words')",
    "breaks": "print('BROKE  a door'); print('2 attempts, 1 held, 1 broke'); raise SystemExit(1)",
    "lies": "print('2 attempts, 1 held, 1 broke')",
    "falls": "print('seed 7'); raise OSError('no room')",
    "hangs": "import time; time.sleep(60); print('1 attempts, 1 held, 0 broke')",
}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    for name, text in SUITES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "test_holds.py").write_text("1/0")
    monkeypatch.setattr(prove, "SUITES", tmp_path)
    return tmp_path


def test_every_suite_has_its_place_in_the_order():
    assert set(prove.names()) == set(prove.MINUTES)
    assert prove.names()[0] == "partition"


def test_a_suite_holds_only_if_it_says_so_and_ends_well(made_up):
    ended = {name: prove.run_suite(name, minutes=0.2 if name == "hangs" else 1) for name in SUITES}
    assert [name for name, one in ended.items() if one.held()] == ["holds"]
    assert (ended["holds"].seed, ended["holds"].last) == ("7", "2 attempts, 2 held, 0 broke")
    assert ended["falls"].last == "no last line"
    assert ended["hangs"].seconds < 60
    assert "BROKE (exit code 1): 2 attempts, 1 held, 1 broke" in ended["breaks"].row()


def test_the_table_names_every_suite_and_what_broke(made_up, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["prove", "--seed", "21", "holds", "breaks"])
    with pytest.raises(SystemExit) as exit_:
        prove.main()
    breaks, holds, last = capsys.readouterr().out.splitlines()[-3:]
    assert exit_.value.code == 1
    assert breaks.startswith("breaks")
    assert "BROKE (exit code 1): 2 attempts" in breaks
    assert holds.startswith("holds")
    assert holds.endswith("held: 2 attempts, 2 held, 0 broke")
    assert last.startswith("2 suites in ")
    assert last.endswith("broke: breaks")
    monkeypatch.setattr("sys.argv", ["prove", "no-such-suite"])
    with pytest.raises(SystemExit) as exit_:
        prove.main()
    assert exit_.value.code == 2

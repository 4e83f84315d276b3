"""The short form of ``hostile_coordinator.py``: the same questions to the same gate, in process."""

import pytest
from tests.security.hostile_coordinator import run


def test_a_hostile_coordinator_learns_nothing_of_one_patient(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, 7, quick=True)
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert said.rstrip().endswith(" 0 broke")

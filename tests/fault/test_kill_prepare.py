import kill_prepare


def test_every_kind_of_bad_file_is_counted_and_kills_leave_no_trace(tmp_path):
    found = kill_prepare.trial(tmp_path, files=140, bad=60, kills=4, seed=1)
    assert found["accepted"] == 140 - sum(found["rejected"].values())
    assert sum(found["rejected"].values()) == 60
    assert found["kills_at_work"] >= 2

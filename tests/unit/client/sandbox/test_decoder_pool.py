from contextlib import ExitStack

import pytest

from mamfed_client.sandbox.decoder_pool import MAX_DECODERS, open_decoder_pool


@pytest.mark.parametrize(
    ("cores", "tasks", "expected"),
    [
        (6, 1, [6]),
        (6, 2, [3, 3]),
        (6, 4, [1] * 4),
        (6, 100, [1] * 6),
        (32, 100, [4] * MAX_DECODERS),
        (6, 0, []),
    ],
)
def test_files_read_side_by_side_share_the_cores(monkeypatch, cores, tasks, expected):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    with open_decoder_pool(tasks) as side_by_side, ExitStack() as stack:
        decoders = [stack.enter_context(side_by_side.decoder()) for _ in expected]
        assert [decoder.threads for decoder in decoders] == expected

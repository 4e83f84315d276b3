import hashlib
import threading

import pytest

from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.hashing import PIECE, hashing


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE - 1])
def test_a_file_of_any_number_of_pieces_is_hashed_whole(size):
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    with hashing(data) as sha256:
        assert sha256() == hashlib.sha256(data).hexdigest()


def test_hashing_ends_with_a_refusal():
    threads = threading.active_count()
    with pytest.raises(FileRejected), hashing(bytes(64 * PIECE)):
        raise FileRejected(Reason.NO_PIXELS)
    assert threading.active_count() == threads

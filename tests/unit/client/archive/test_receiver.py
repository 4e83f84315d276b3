"""A listener takes the one object that was asked for, within a size."""

from types import SimpleNamespace

from mamfed_client.archive.receiver import NOT_ASKED_FOR, OUT_OF_RESOURCES, SUCCESS, Receiver


def store(receiver, uid, data):
    request = SimpleNamespace(AffectedSOPInstanceUID=uid)
    return receiver.store(SimpleNamespace(request=request, encoded_dataset=lambda: data))


def test_only_what_was_asked_for_is_taken():
    receiver = Receiver()
    assert store(receiver, "1.1", b"early") == NOT_ASKED_FOR
    receiver.expect("1.2")
    assert store(receiver, "1.1", b"another") == NOT_ASKED_FOR
    assert store(receiver, "1.2", b"data") == SUCCESS
    assert receiver.take() == (b"data", False)
    assert store(receiver, "1.2", b"again") == NOT_ASKED_FOR
    assert receiver.take() == (None, False)


def test_a_large_object_is_refused_and_an_endless_one_ends_the_association():
    receiver, aborted = Receiver(limit=10), []
    receiver.expect("1.2")
    assert store(receiver, "1.2", bytes(11)) == OUT_OF_RESOURCES
    assert receiver.take() == (None, True)
    receiver.expect("1.2")
    association = SimpleNamespace(abort=lambda: aborted.append(True))
    for _ in range(3):
        receiver.count(SimpleNamespace(assoc=association, data=bytes(1 << 19)))
    assert aborted
    assert receiver.take() == (None, True)

"""A listener takes the one object that was asked for, within a size."""

from socket import IPPROTO_TCP, TCP_NODELAY
from types import SimpleNamespace

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from mamfed_client.archive.dimse import Dimse
from mamfed_client.archive.receiver import NOT_ASKED_FOR, OUT_OF_RESOURCES, SUCCESS, Receiver
from mamfed_client.site.archive_settings import DimseSettings


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


def test_connections_of_both_directions_send_small_packets_at_once():
    def delays(association):
        return not association.dul.socket.socket.getsockopt(IPPROTO_TCP, TCP_NODELAY)

    def echo(event):
        found.append(delays(event.assoc))
        return SUCCESS

    found = []
    listener = AE(ae_title="ARCHIVE")
    listener.add_supported_context(Verification)
    handlers = [*Receiver().handlers(), (evt.EVT_C_ECHO, echo)]
    server = listener.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        port = server.server_address[1]
        settings = DimseSettings(host="127.0.0.1", port=port, called="ARCHIVE")
        entity = Dimse(settings, timeout_s=10)
        entity.echo()
        found += map(delays, entity._open.values())
        entity.close()
    finally:
        server.shutdown()
    assert found == [False, False]

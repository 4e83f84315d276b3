"""What the request guard reads of a request to Flower's Fleet API: paths, headers and senders."""

from __future__ import annotations

import base64

from google.protobuf.message import DecodeError

from mamfed_common.errors import LinkError
from mamfed_server.fleet.flower_compat import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
    PushMessagesRequest,
    bytes_to_public_key,
)

KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower()
VERSION_HEADER = FLWR_PACKAGE_VERSION_METADATA_KEY.lower()
FLEET = "/v1/fleet/"
ACTIVATE_NODE, PUSH_MESSAGES = f"{FLEET}activate-node", f"{FLEET}push-messages"
PUSH_OBJECT = f"{FLEET}push-object"


def key_of(header: bytes) -> bytes:
    """Read a site's public key from Flower's header value; return its PEM.

    Raises:
        LinkError: It is not base64 of an elliptic-curve key.
    """
    try:
        pem = base64.b64decode(header, validate=True)
        bytes_to_public_key(pem)
    except ValueError:
        raise LinkError("its public key cannot be read") from None
    return pem


def check_sender(body: bytes) -> None:
    """Check that the messages of a push come from its sender.

    Flower checks that a request's node belongs to its key (if not, it answers 401, for example to a
    node that has not noticed a new server), but not that the messages inside come from that node.

    Raises:
        LinkError: A message is of another node, or the body cannot be parsed.
    """
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise LinkError("its message cannot be read") from None
    if any(m.metadata.src_node_id != request.node.node_id for m in request.messages_list):
        raise LinkError("the message was pushed in another site's name")

"""Attempts by messages: a site reads, answers or deletes what is another's, or fills the memory."""

from __future__ import annotations

import hashlib

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.error_pb2 import Error
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from tests.security.lib.door import Credentials, replaced, signed
from tests.security.lib.scene import Attempt, Scene

PART = 4 * 2**20


def attempts() -> list[Attempt]:
    """Return all attempts of this kind, those that use up what was asked last."""
    return [
        Attempt("reading the victim's objects", _pull_object),
        Attempt("deleting the victim's objects", _confirm),
        Attempt("replying in the victim's name", _reply_as_victim),
        Attempt("replying to the victim's request", _reply_to_victim),
        Attempt("another bundle, with a line for the log", _log_injection),
        Attempt("a tree of another message", _foreign_tree),
        Attempt("a tree of 200,000 objects", _large_tree),
        Attempt("ids that are none", _bad_ids),
        Attempt("an object that is not its id's", _wrong_object),
        Attempt("objects without a session", _no_session),
        Attempt("a flood of objects beyond the quota", _flood),
        Attempt("the quota anew by another push", _quota_again),
        Attempt("another reply to what was answered", _another_reply),
        Attempt("a flood of replies with errors", _errors),
    ]


def _objects(scene: Scene, name: str) -> list[str]:
    (tree,) = scene.asked[name].message_object_trees
    return [node.object_id for node in iterate_object_tree(tree)]


def _run_id(scene: Scene) -> int:
    return int(scene.asked["mallory"].messages_list[0].metadata.run_id)


def _read(scene: Scene, who: Credentials, object_id: str) -> PullObjectResponse:
    request = PullObjectRequest(node=scene.node(who), run_id=_run_id(scene), object_id=object_id)
    return scene.door.call(who, "pull-object", request, PullObjectResponse())


def _pull_object(scene: Scene) -> str:
    """The message itself is the victim's alone; what both were asked, both may read."""
    own = set(_objects(scene, "mallory"))
    foreign = [one for one in _objects(scene, "victim") if one not in own]
    if not foreign:
        return "the victim's request has no object of its own"
    for object_id in foreign:
        answer = _read(scene, scene.mallory, object_id)
        if answer.object_found or answer.object_content:
            return "the object was handed out"
        if not _read(scene, scene.victim, object_id).object_content:
            return "the victim itself cannot read it"
    return ""


def _confirm(scene: Scene) -> str:
    for object_id in _objects(scene, "victim"):
        request = ConfirmMessageReceivedRequest(
            node=scene.node(scene.mallory), run_id=_run_id(scene), message_object_id=object_id
        )
        scene.door.post(scene.mallory, "confirm-message-received", request)
    if not all(_read(scene, scene.victim, i).object_content for i in _objects(scene, "victim")):
        return "objects of the victim are gone"
    return ""


def _reply(scene: Scene, to: str):
    """Return a reply to what a site was asked, and the call that begins it."""
    asked = message_from_proto(scene.asked[to].messages_list[0])
    made = Message(RecordDict({"body": ConfigRecord({"json": "{}"})}), reply_to=asked)
    made.metadata.__dict__["_message_id"] = made.object_id
    push = PushMessagesRequest(
        node=scene.node(getattr(scene, to)),
        messages_list=[message_to_proto(made)],
        message_object_trees=[get_object_tree(made)],
    )
    push.messages_list[0].ClearField("content")
    return made, push


def _begins(scene: Scene, push: PushMessagesRequest, target: str = "push-messages") -> str:
    answer = scene.door.post(scene.mallory, target, push)
    if answer.status != 200:
        return ""
    begun = PushMessagesResponse()
    begun.ParseFromString(answer.body)
    return "the reply was begun" if begun.session_id or begun.objects_to_push else ""


def _reply_as_victim(scene: Scene) -> str:
    _, push = _reply(scene, "victim")
    for target in ("push-messages", "push-messages%0a", "/v1/fleet//push-messages"):
        push.node.node_id = scene.node_ids["mallory"]
        if flaw := _begins(scene, push, target):
            return f"{target}: {flaw}"
        push.node.node_id = scene.node_ids["victim"]
        if flaw := _begins(scene, push, target):
            return f"{target}: {flaw}"
    return ""


def _reply_to_victim(scene: Scene) -> str:
    _, push = _reply(scene, "victim")
    push.node.node_id = scene.node_ids["mallory"]
    push.messages_list[0].metadata.src_node_id = scene.node_ids["mallory"]
    return _begins(scene, push)


FORGED = "2030-01-01 00:00:00,000 INFO FORGED"


def _log_injection(scene: Scene) -> str:
    line = f"x\n{FORGED}\x1b[2J"
    node, run_id = scene.node(scene.mallory), _run_id(scene)
    scene.door.post(
        scene.mallory, "get-fab", GetFabRequest(node=node, run_id=run_id, hash_str=line)
    )
    scene.door.post(
        scene.mallory, "pull-object", PullObjectRequest(node=node, run_id=run_id, object_id=line)
    )
    _, push = _reply(scene, "mallory")
    push.messages_list[0].metadata.reply_to_message_id = line
    push.messages_list[0].metadata.group_id = line
    scene.door.post(scene.mallory, "push-messages", push)
    headers = replaced(signed(scene.mallory.node), "content-type", "a/b;" + "c" * 9000)
    scene.door.post(scene.mallory, "pull-messages", b"", headers)
    if scene.log is None or not scene.log.exists():
        return ""
    text = scene.log.read_text(errors="replace")
    if any(entry.startswith(FORGED) for entry in text.split("\n")) or "\x1b[2J" in text:
        return "a line of the attacker's stands in the log"
    longest = max(map(len, text.split("\n")))
    return f"a line of {longest} characters" if longest > 3000 else ""


def _foreign_tree(scene: Scene) -> str:
    _, push = _reply(scene, "mallory")
    push.message_object_trees[0].CopyFrom(scene.asked["victim"].message_object_trees[0])
    return _begins(scene, push)


def _large_tree(scene: Scene) -> str:
    _, push = _reply(scene, "mallory")
    for count in (10_000, 200_000):
        tree = ObjectTree(object_id=push.messages_list[0].metadata.message_id)
        for number in range(count):
            tree.children.add(object_id=hashlib.sha256(str(number).encode()).hexdigest())
        push.message_object_trees[0].CopyFrom(tree)
        if flaw := _begins(scene, push):
            return flaw
    return ""


def _bad_ids(scene: Scene) -> str:
    _, push = _reply(scene, "mallory")
    for bad in ("", "x" * 64, "0X" + "a" * 62, "a" * 64 + "\n", "A" * 64):
        push.message_object_trees[0].children[0].object_id = bad
        if flaw := _begins(scene, push):
            return flaw
    return ""


def _begin(scene: Scene):
    """Begin mallory's one reply, or repeat its beginning."""
    made, push = scene.kept.setdefault("reply", _reply(scene, "mallory"))
    begun = scene.door.call(scene.mallory, "push-messages", push, PushMessagesResponse())
    if not begun.session_id or not begun.objects_to_push:
        raise ConnectionError("the reply that is asked for is not taken")
    return made, begun


def _push(scene: Scene, session: str, object_id: str, content: bytes) -> tuple[int, bool]:
    request = PushObjectRequest(
        node=scene.node(scene.mallory),
        run_id=_run_id(scene),
        session_id=session,
        object_id=object_id,
        object_content=content,
    )
    answer = scene.door.post(scene.mallory, "push-object", request)
    stored = PushObjectResponse()
    if answer.status == 200:
        stored.ParseFromString(answer.body)
    return answer.status, stored.stored


def _wrong_object(scene: Scene) -> str:
    _, begun = _begin(scene)
    content = b"ConfigRecord  2\x00ab"
    taken = [_push(scene, begun.session_id, i, content)[1] for i in begun.objects_to_push]
    own = hashlib.sha256(content).hexdigest()
    taken.append(_push(scene, begun.session_id, own, content)[1])
    return "an object was taken" if any(taken) else ""


def _no_session(scene: Scene) -> str:
    made, begun = _begin(scene)
    for session in ("", "0" * 32, begun.session_id + "\n"):
        for object_id, part in get_all_nested_objects(made).items():
            if _push(scene, session, object_id, part.deflate())[1]:
                return "an object was taken"
    return ""


def _flood(scene: Scene) -> str:
    """Push until the quota ends it; all of it is dropped."""
    _, begun = _begin(scene)
    for _ in range(200):
        status, stored = _push(scene, begun.session_id, begun.objects_to_push[0], bytes(PART))
        if stored:
            return "an object was taken"
        if status == 413:
            return ""
    return "800 MiB were read without end"


def _quota_again(scene: Scene) -> str:
    _, begun = _begin(scene)
    status, _ = _push(scene, begun.session_id, begun.objects_to_push[0], bytes(PART))
    return "" if status == 413 else f"answered {status}"


def _another_reply(scene: Scene) -> str:
    _begin(scene)
    _, push = _reply(scene, "mallory")
    return _begins(scene, push)


def _errors(scene: Scene) -> str:
    """Replies that are errors with a megabyte of text each: nothing of it is kept."""
    _, push = _reply(scene, "mallory")
    _begin(scene)
    for number in range(30):
        root = hashlib.sha256(f"error {number}".encode()).hexdigest()
        push.messages_list[0].metadata.message_id = root
        push.message_object_trees[0].CopyFrom(ObjectTree(object_id=root))
        push.messages_list[0].error.CopyFrom(Error(code=1, reason="x" * 900_000))
        if flaw := _begins(scene, push):
            return flaw
    answer = scene.door.post(
        scene.mallory, "pull-messages", PullMessagesRequest(node=scene.node(scene.mallory))
    )
    PullMessagesResponse().ParseFromString(answer.body)
    return "" if answer.status == 200 else f"answered {answer.status}"

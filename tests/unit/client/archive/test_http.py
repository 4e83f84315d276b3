"""Answers of an archive are bounded, and errors quote no address."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mamfed_client.archive import http
from mamfed_client.archive.dicomweb import DicomWeb, _only_part
from mamfed_client.archive.objects import ObjectGone, ObjectName, ObjectRefused, Unreachable
from mamfed_client.site.archive_settings import DicomWebSettings
from mamfed_common.errors import LinkError, SetupError

NAME = ObjectName("1.2.1", "1.2.2", "1.2.3")
PART = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\nDATA\r\n--b--\r\n"


@pytest.fixture
def service():
    """A server that answers what it is told: status, headers and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answer
            self.server.seen = self.headers
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    answer = [200, {}, b""]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, answer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reach(server, **settings):
    url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    return DicomWeb(DicomWebSettings(url=url, **settings), 5)


def test_an_object_is_the_only_part_of_the_answer(service):
    server, answer = service
    answer[:] = (
        200,
        {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
        PART,
    )
    assert reach(server).fetch(NAME) == b"DATA"


@pytest.mark.parametrize("body", [b"", b"--b", b"--b\r\n\r\nDATA", PART.replace(b"--b", b"--c")])
def test_an_answer_without_an_object_is_refused(body):
    with pytest.raises(ObjectRefused):
        _only_part('multipart/related; boundary="b"', body)


def test_a_huge_answer_is_cut(service, monkeypatch):
    server, answer = service
    monkeypatch.setattr(http, "MAX_ANSWER", 1000)
    answer[:] = 200, {}, bytes(200_000)
    with pytest.raises(LinkError, match="an answer of more than"):
        reach(server).fetch(NAME)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, LinkError, "refuses this site"),
        (404, ObjectGone, None),
        (500, Unreachable, "HTTP 500"),
        (302, LinkError, "redirects"),
    ],
)
def test_a_status_is_told_without_the_address(service, status, kind, words):
    server, answer = service
    answer[:] = status, {"Location": "http://127.0.0.1:1/"}, b""
    with pytest.raises(kind, match=words) as error:
        reach(server).fetch(NAME)
    assert "1.2.3" not in str(error.value)


def test_a_search_that_is_no_dicom_json_is_told(service):
    server, answer = service
    answer[:] = 200, {"Content-Type": "text/html"}, b"<html>"
    with pytest.raises(LinkError, match="DICOM"):
        reach(server).check()


def test_a_token_is_sent_and_its_file_is_private(service, tmp_path):
    server, answer = service
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        reach(server, token_file=token)
    token.chmod(0o600)
    answer[:] = 404, {}, b""
    with pytest.raises(ObjectGone):
        reach(server, token_file=token).fetch(NAME)
    assert server.seen["Authorization"] == "Bearer s3cret"

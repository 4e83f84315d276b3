"""Who may see a page, and which requests are refused before any page sees them."""

import re
import stat

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.unit.common.web.served import served

from mamfed_common.errors import SetupError
from mamfed_common.web import guard
from mamfed_common.web.guard import FORM_BYTES, HEADERS, fields_of
from mamfed_common.web.limits import Buckets
from mamfed_common.web.pages import Look, Pages, form_of
from mamfed_common.web.serving import ADDRESS_FILE
from mamfed_common.web.sessions import IDLE_SECONDS, MOST_SESSIONS, Sessions

PAGES = Pages("mamfed_common.web", Look("Test", "test", [("/", "First")]))


async def _change(request):
    form = await form_of(request)
    return PlainTextResponse(f"{request.state.session.who} changed {form.get('what')}")


def _fail(request):
    raise SetupError("found <b>nothing</b>, expected something")


ROUTES = [
    Route("/", lambda request: PAGES.notice(request, "First page", "seen")),
    Route("/change", _change, methods=["POST"]),
    Route("/fail", _fail),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def site(home):
    with served(ROUTES, home, pages=PAGES) as running:
        yield running


def _token(client):
    return re.search(r'name="csrf" value="([^"]+)"', client.get("/").text).group(1)


def test_nobody_sees_a_page_without_the_address(site):
    with site.client(signed_in=False) as client:
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/sign-in"
        assert client.get("/sign-in?token=wrong").status_code == 401
        assert client.get("/assets/page.css").status_code == 200


def test_the_address_opens_the_page_once_and_leaves_the_address_bar(site, home):
    first = site.prepared.door.address.current
    with site.client(signed_in=False) as client, site.client(signed_in=False) as other:
        answer = client.get(first)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "seen" in client.get("/").text
        again = other.get(first)
        assert again.status_code == 401
        assert "was used before" in again.text
    file = home / ADDRESS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == site.prepared.door.address.current != first


def test_the_address_is_gone_with_the_server(tmp_path):
    with served(ROUTES, tmp_path, pages=PAGES):
        assert (tmp_path / ADDRESS_FILE).exists()
    assert not (tmp_path / ADDRESS_FILE).exists()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("user@127.0.0.1", 421),
        ("127.0.0.1/x", 421),
        ("", 421),
    ],
)
def test_a_name_that_rebinding_would_use_is_refused(site, host, status):
    with site.client() as client:
        assert client.get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "OWN"}, 200),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-origin"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_a_change_must_come_from_the_own_page(site, headers, status):
    with site.client() as client:
        headers = {name: value.replace("OWN", site.base) for name, value in headers.items()}
        form = {"csrf": _token(client), "what": "a"}
        answer = client.post("/change", data=form, headers=headers)
        assert answer.status_code == status
        assert ("local changed a" in answer.text) is (status == 200)


def test_a_change_must_carry_the_token_of_its_session(site):
    origin = {"origin": site.base}
    with site.client() as client, site.client() as other:
        theirs, ours = _token(other), _token(client)
        assert theirs != ours
        assert client.post("/change", headers=origin).status_code == 403
        for token in ("", theirs, "ä"):
            answer = client.post("/change", data={"csrf": token}, headers=origin)
            assert answer.status_code == 403
        with_header = {**origin, "x-csrf-token": ours}
        assert client.post("/change", headers=with_header).status_code == 200


def test_signing_out_ends_the_session(site):
    with site.client() as client:
        kept = dict(client.cookies)
        form = {"csrf": _token(client)}
        assert client.post("/sign-out", data=form, headers={"origin": site.base}).is_redirect
        client.cookies.update(kept)
        assert client.get("/").status_code == 401


def test_every_answer_has_the_headers(site):
    with site.client() as client:
        answers = [client.get(path) for path in ("/", "/nothing", "/fail", "/assets/page.js")]
        answers.append(client.get("/", headers={"host": "evil.example"}))
    assert [answer.status_code for answer in answers] == [200, 404, 409, 200, 421]
    for answer in answers:
        own = {"cache-control"} if "assets" in str(answer.url) else set()
        assert {k: answer.headers.get(k) for k in HEADERS if k not in own} == {
            k: v for k, v in HEADERS.items() if k not in own
        }
        assert "server" not in answer.headers
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "&lt;b&gt;nothing" in answers[2].text


def test_a_large_form_and_other_methods_are_refused(site):
    with site.client() as client:
        origin = {"origin": site.base}
        assert client.post("/change", content=b"x" * (FORM_BYTES + 1)).status_code == 413

        def pieces():
            for _ in range(FORM_BYTES // 1000 + 2):
                yield b"x" * 1000

        assert client.post("/change", content=pieces(), headers=origin).status_code == 413
        assert client.put("/change").status_code == 405


def test_too_many_requests_are_refused_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "BURST", 3)
    monkeypatch.setattr(guard, "PER_SECOND", 0.01)
    with (
        served(ROUTES, tmp_path, pages=PAGES) as site,
        site.client(signed_in=False) as client,
    ):
        answers = [client.get("/assets/icon.svg") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 90


def test_a_bucket_refills():
    now = [0.0]
    buckets = Buckets(2, 0.5, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 2]
    assert buckets.take("b") == 0
    now[0] = 2.0
    assert [buckets.take("a") for _ in range(2)] == [0, 2]


def test_sessions_end_when_idle_and_are_few():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.open("anna")
    assert sessions.get(first).who == "anna"
    now[0] = IDLE_SECONDS + 1
    assert sessions.get(first) is None
    keys = [sessions.open("anna") for _ in range(MOST_SESSIONS + 1)]
    assert [sessions.get(key) is None for key in keys] == [True] + [False] * MOST_SESSIONS


def test_fields_of_a_damaged_form_are_none():
    assert fields_of(b"a=1&a=2&b=%41+c&d=") == {"a": "1", "b": "A c", "d": ""}
    assert fields_of(b"&".join(b"a=1" for _ in range(200))) == {}
    assert fields_of("ä=1".encode()) == {}

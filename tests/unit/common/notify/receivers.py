"""A web server and a mail server on loopback, with the certificate of a coordinator's home."""

import base64
import json
import socket
import socketserver
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


def tls_of(home):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.server_certificate, home.server_key)
    return context


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.slow_seconds)
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Location", "https://localhost/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def web_server(context=None, status=200, slow_seconds=0.0):
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    server.got, server.status, server.slow_seconds = [], status, slow_seconds
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Mail(socketserver.StreamRequestHandler):
    """RFC 5321 with STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4954), as far as smtplib asks."""

    def handle(self):
        self.secure = False
        self.say("220 mail ready")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "QUIT":
                return self.say("221 bye")
            if word == "DATA":
                self.take()
            elif word == "STARTTLS":
                self.say("220 go")
                self.request = self.server.tls.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb")
                self.secure = True
            else:
                self.answer(word, line)
        return None

    def answer(self, word, line):
        if word == "EHLO":
            offers = ["AUTH PLAIN"] if self.secure else ["STARTTLS"]
            return self.say("\r\n".join(["250-mail", *(f"250-{o}" for o in offers[:-1]),
                                         f"250 {offers[-1]}"]))  # fmt: skip
        if word == "AUTH":
            given = base64.b64decode(line.split()[2]).decode().split("\0")[1:]
            right = given == ["office", self.server.password]
            return self.say("235 in" if right else "535 no")
        return self.say("250 ok")

    def take(self):
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line)
        self.server.got.append(("".join(lines), self.secure))
        self.say("250 taken")

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()


class _MailServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_):
        pass


@contextmanager
def mail_server(tls, password="secret"):
    server = _MailServer(("127.0.0.1", 0), _Mail)
    server.tls, server.password, server.got = tls, password, []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def port_of(server):
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]

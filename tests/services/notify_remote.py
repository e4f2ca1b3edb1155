"""What stands in for Telegram, a webhook and a mail server: runs inside the machine under test, with Python alone.

`notify_remote.py FOLDER services`: HTTP on 8080, HTTPS on 443, SMTP on 2525. How a service answers is read for each
request from FOLDER/<service>.json; what it has got goes to FOLDER/received as JSON, a line each. The service is the
first part of the path, or `telegram`, or `mail`.
`notify_remote.py FOLDER journal`: the journal's socket /dev/log; what it gets goes to FOLDER/journal.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
LOCK = threading.Lock()


def behaviour(service: str) -> dict[str, Any]:
    """`status`, `headers` and `body` of an answer; or `mode`: hang, garbage or trickle. None is 200."""
    try:
        found: dict[str, Any] = json.loads((FOLDER / f"{service}.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def got(service: str, **what: Any) -> None:
    """Write down what a service has got, before it answers."""
    with LOCK, (FOLDER / "received").open("a") as target:
        target.write(json.dumps({"service": service, **what}) + "\n")


class Web(BaseHTTPRequestHandler):
    """Takes everything that is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        telegram = isinstance(self.server, Secure)
        service = "telegram" if telegram else self.path.split("/")[1].split("?")[0]
        got(service, path=self.path, headers=dict(self.headers), body=body)
        self.answer(behaviour(service))

    def do_GET(self) -> None:
        self.answer({})

    def answer(self, how: dict[str, Any]) -> None:
        """Answer as told, or worse."""
        if how.get("mode") == "hang":
            self.rfile.read(1)
        elif how.get("mode") == "garbage":
            self.wfile.write(os.urandom(512) + b"\r\n\r\n")
        elif how.get("mode") == "trickle":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            stop = threading.Event()
            while not stop.wait(0.5):
                self.wfile.write(b".")
                self.wfile.flush()
        else:
            content = how.get("body", "{}").replace("PATH", self.path).encode()
            self.send_response(how.get("status", 200))
            for name, value in how.get("headers", {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            # The other side has lost its patience, as it should.
            self.close_connection = True

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class Secure(ThreadingHTTPServer):
    """The same over TLS."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Web)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as it takes to be handed a mail by somebody with a password."""

    def handle(self) -> None:
        self.say(220, "ready")
        envelope: dict[str, Any] = {"to": []}
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            verb, how = verb.upper(), behaviour("mail")
            if verb == "EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN LOGIN\r\n")
            elif verb == "AUTH":
                envelope["auth"] = rest
                self.say(how.get("auth", 235), "PATH " + rest if how else "welcome")
            elif verb == "RCPT":
                envelope["to"].append(rest)
                self.say(250, "well")
            elif verb == "DATA":
                self.say(354, "go on")
                lines: list[str] = []
                for part in self.rfile:
                    if part == b".\r\n":
                        break
                    lines.append(part.decode())
                got("mail", **envelope, body="".join(lines))
                self.say(how.get("status", 250), "taken" if not how else "no")
            elif verb == "QUIT":
                self.say(221, "bye")
                return
            else:
                self.say(250, "well")

    def say(self, code: int, text: str) -> None:
        """Answer."""
        self.wfile.write(f"{code} {text}\r\n".encode())


class Threading(socketserver.ThreadingTCPServer):
    """One thread for each connection, and the port free again at once."""

    allow_reuse_address = True
    daemon_threads = True


def journal() -> None:
    """Take what is logged, as the journal does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("/dev/log")
        while True:
            text = log.recv(65536)
            with (FOLDER / "journal").open("ab") as target:
                target.write(text.strip(b"\0\n") + b"\n")


def services() -> None:
    """Serve until killed; FOLDER/ready says that all of them listen."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 8080), Web), Secure(443), Threading(("127.0.0.1", 2525), Mail)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    (FOLDER / "ready").write_text(str(os.getpid()))
    servers[0].serve_forever()


if __name__ == "__main__":
    {"journal": journal, "services": services}[sys.argv[2]]()

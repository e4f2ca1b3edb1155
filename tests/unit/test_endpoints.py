"""Servers that answer, refuse or say nothing, and ports that are free or taken, on loopback."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import endpoints
import pytest


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP socket that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_each_endpoint_tells_its_own_problem(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        silent = ("127.0.0.1", closed.getsockname()[1])
        answers = endpoints.reach([("127.0.0.1", port), silent, ("registry.invalid", 443)], 5)
    assert answers["127.0.0.1", port] == ""
    assert "refused" in answers[silent]
    assert answers["registry.invalid", 443] == "the name cannot be resolved"


def test_server_that_never_answers_is_not_waited_for(listener: socket.socket) -> None:
    """A full backlog drops connections, as a firewall does."""
    full = listener.getsockname()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        name = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(name)
        answers = endpoints.reach([name, full], 1)
        for one in waiting:
            one.close()
    assert answers[name] == "does not answer within 1 s"
    assert answers[full] == ""


@pytest.mark.parametrize(
    ("image", "endpoint"),
    [
        ("registry.test:5000/postgres:17", ("registry.test", 5000)),
        ("registry.test/team/postgres:17", ("registry.test", 443)),
        ("plain.test/postgres:17", ("plain.test", 80)),
        ("localhost/postgres:17", ("localhost", 443)),
        ("team/postgres:17", None),
        ("postgres:17", None),
    ],
)
def test_registry_of_an_image(image: str, endpoint: tuple[str, int] | None) -> None:
    assert endpoints.registry_endpoint(image, ["plain.test"]) == endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://mirror.test/debian", ("mirror.test", 80)),
        ("https://mirror.test/debian", ("mirror.test", 443)),
        ("http://mirror.test:3142/debian", ("mirror.test", 3142)),
    ],
)
def test_endpoint_of_a_url(url: str, endpoint: tuple[str, int]) -> None:
    assert endpoints.url_endpoint(url) == endpoint


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers as an engine that has one image."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/images/registry.test%3A5000/here%3A1/json" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def address_string(self) -> str:
        return "unix"


def test_missing_images_are_those_the_engine_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(endpoints, "DOCKER_SOCKET", path)
    images = ["registry.test:5000/here:1", "registry.test:5000/there:1"]
    assert endpoints.missing_images(images, 5) == images, "there is no engine"
    with socketserver.UnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert endpoints.missing_images(images, 5) == images[1:]
        finally:
            server.shutdown()
            thread.join()


def test_taken_port_names_its_holder(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    holders = endpoints.port_holders(port, "tcp")
    assert len(holders) == 1
    assert endpoints.bind_problem("127.0.0.1", port, "tcp") == f"is taken by {holders.pop()}"
    assert endpoints.bind_problem("127.0.0.1", port, "udp") == ""


def test_port_of_the_engine_is_ours(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listener.getsockname()[1]
    monkeypatch.setattr(endpoints, "ENGINE", tuple(endpoints.port_holders(port, "tcp")))
    assert endpoints.bind_problem("127.0.0.1", port, "tcp") == ""


def test_address_of_another_machine_cannot_be_bound() -> None:
    assert "cannot be bound" in endpoints.bind_problem("192.0.2.1", 8443, "tcp")

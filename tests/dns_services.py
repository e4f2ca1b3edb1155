"""DuckDNS, Cloudflare's DNS and two services that tell one's address, on the loopback and with a TLS of their own."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import socketserver
import ssl
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "canary-5b1e-dns-token"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "dns.pem", folder / "dns.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return cert, private


class DnsServices(http.server.ThreadingHTTPServer):
    """All of them in one server.

    What a name leads to stands in `duck` (label -> settings) and `records` (Cloudflare's, with ids). `address` is what
    the services see, `wrong` what the second one says instead, `six` what /see/six says. `status` and `headers` take
    the place of every answer of the provider, `moved` sends its callers elsewhere, `hidden` texts are not told by DNS
    yet, and `deaf` is how many questions for texts get no answer.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, zone: str = "shop.example") -> None:
        super().__init__(("127.0.0.1", port), _Talk)
        self.certificate, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.zone = zone
        self.forget()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def forget(self) -> None:
        """As on the first day."""
        self.duck: dict[str, dict[str, str]] = {}
        self.records: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.address, self.wrong, self.six = "93.184.216.34", "", ""
        self.status, self.moved, self.hidden, self.deaf = 0, False, False, 0
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.server_address[1]}"

    def texts(self, name: str) -> list[str]:
        """Texts of a name, as DNS tells them."""
        duck = self.duck.get(name.removeprefix("_acme-challenge.").removesuffix(".duckdns.org"), {}).get("txt", "")
        found = [one["content"].strip('"') for one in self.records if (one["type"], one["name"]) == ("TXT", name)]
        return [text for text in [duck, *found] if text and not self.hidden]

    def changes(self) -> list[str]:
        """What was asked of the provider besides reading."""
        return [line for line in self.asked if line.split()[0] != "GET" or "/update" in line]


class _Talk(http.server.BaseHTTPRequestHandler):
    server: DnsServices
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        """One question."""
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        path, _, query = self.path.partition("?")
        given = dict(urllib.parse.parse_qsl(query))
        if path == "/see/six":
            return self.answer(200, self.server.six)
        if path.startswith("/see/"):
            wrong = self.server.wrong if path == "/see/second" else ""
            trace = f"fl=1\nip={wrong or self.server.address}\nts=2\n"
            return self.answer(200, trace if path == "/see/first" else (wrong or self.server.address) + "\n")
        if path == "/dns-query" and self.server.deaf:
            self.server.deaf -= 1
            self.close_connection = True
            return None
        if path == "/dns-query":
            found = [
                {"name": given["name"], "type": 16, "data": f'"{text}"'} for text in self.server.texts(given["name"])
            ]
            return self.answer(200, json.dumps({"Status": 0, **({"Answer": found} if found else {})}))
        self.server.asked.append(f"{self.command} {path} {json.dumps(given or body, sort_keys=True)}")
        if self.server.moved:
            return self.answer(302, "", {"Location": f"{self.server.url}/see/token-{given.get('token', '')}"})
        if self.server.status:
            return self.answer(self.server.status, "later\n", self.server.headers)
        if path == "/duck/update":
            return self.answer(200, self.duck(given))
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        status, result = self.cloudflare(path.removeprefix("/cf"), given, body) if known else (403, None)
        errors = [] if status == 200 else [{"code": 9109, "message": "Invalid access token"}]
        return self.answer(status, json.dumps({"success": status == 200, "errors": errors, "result": result}))

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def duck(self, given: dict[str, str]) -> str:
        """DuckDNS forgets what is left out, and a text only when told so."""
        if given.pop("token") != TOKEN:
            return "KO"
        label = given.pop("domains")
        if "txt" in given:
            text = "" if given.get("clear") == "true" else given["txt"]
            self.server.duck.setdefault(label, {})["txt"] = text
        else:
            self.server.duck[label] = {"txt": self.server.duck.get(label, {}).get("txt", ""), **given}
        return "OK"

    def cloudflare(self, path: str, given: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """The four calls that are made."""
        if path == "/zones":
            return 200, [{"id": "z1"}] if given["name"] == self.server.zone else []
        records = self.server.records
        ident = path.removeprefix("/zones/z1/dns_records").lstrip("/")
        if self.command == "GET":
            return 200, [one for one in records if (one["type"], one["name"]) == (given["type"], given["name"])]
        if self.command == "POST":
            records.append({"id": f"r{len(self.server.asked)}", "proxied": False, **body})
        elif self.command == "DELETE":
            records[:] = [one for one in records if one["id"] != ident]
        else:
            [found] = [one for one in records if one["id"] == ident]
            found.update(body)
        return 200, {}

    def answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """Send it."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


class Dns(socketserver.ThreadingUDPServer):
    """Answers for the texts of `services` as a name server does, and with nothing for all else."""

    daemon_threads = True

    def __init__(self, services: DnsServices, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Query)
        self.services = services
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Query(socketserver.BaseRequestHandler):
    server: Dns

    def handle(self) -> None:
        """One question: a header, labels with their lengths, type and class."""
        packet, connection = self.request
        end = packet.index(b"\0", 12)
        labels, place = [], 12
        while place < end:
            labels.append(packet[place + 1 : place + 1 + packet[place]].decode())
            place += 1 + packet[place]
        kind = int.from_bytes(packet[end + 1 : end + 3], "big")
        texts = self.server.services.texts(".".join(labels).lower()) if kind == 16 else []
        header = packet[:2] + b"\x85\x80\0\1" + len(texts).to_bytes(2, "big") + b"\0\0\0\0"
        answers = [self.record(text.encode()) for text in texts]
        connection.sendto(header + packet[12 : end + 5] + b"".join(answers), self.client_address)

    @staticmethod
    def record(text: bytes) -> bytes:
        """A TXT record of the name that was asked for."""
        data = len(text).to_bytes(1, "big") + text
        return b"\xc0\x0c\0\x10\0\1\0\0\0\0" + len(data).to_bytes(2, "big") + data

"""Inside the container of test_entrance_acme.py: what a Pi talks to for its certificate.

`acme_remote.py FOLDER services`: DuckDNS and Cloudflare's DNS (8443), and a name server for their texts (8053).
`acme_remote.py FOLDER authority`: pebble (14000). Each writes its process id into FOLDER and ends when killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from dns_services import Dns, DnsServices, certificate


def services(folder: Path) -> None:
    """Speak for DNS, until killed."""
    made = DnsServices(folder, 8443)
    Dns(made, 8053)
    (folder / "services.pid").write_text(str(os.getpid()))
    threading.Event().wait()


def authority(folder: Path) -> None:
    """Become pebble."""
    place = folder / "authority"
    place.mkdir(exist_ok=True)
    # The one that clients know stays the same.
    if not (place / "dns.pem").exists():
        certificate(place)
    settings = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": str(place / "dns.pem"),
        "privateKey": str(place / "dns.key"),
        "httpPort": 5002,
        "tlsPort": 5001,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    (folder / "authority.pid").write_text(str(os.getpid()))
    os.environ.update({"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"})
    command = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", "127.0.0.1:8053"]
    os.execvp(command[0], command)  # noqa: S606 - a list, from here


if __name__ == "__main__":
    {"services": services, "authority": authority}[sys.argv[2]](Path(sys.argv[1]))

"""What follows from the catalog: plain lists and dictionaries, as templates and tasks take them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .load import Catalog, start_order
from .service import SECRETS_DIR

Row = dict[str, Any]
_BRIDGE_NAME = "com.docker.network.bridge.name"


def as_dict(catalog: Catalog, derived_secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Every derivation under its name; ``derived_secrets`` are those the automation computes from others."""
    return {
        "services": list(catalog.services),
        "start_order": start_order(catalog),
        "capacity": capacity_rows(catalog),
        "images": images(catalog),
        "published_ports": published_ports(catalog),
        "networks": networks(catalog),
        "reach": reach(catalog),
        "routes": routes(catalog),
        "databases": databases(catalog),
        "backup_manifest": backup_manifest(catalog),
        "backup_services": backup_services(catalog),
        "scrape_targets": scrape_targets(catalog),
        "probes": probes(catalog),
        "secret_files": secret_files(catalog),
        "secret_names": secret_names(catalog, derived_secrets),
        "docs_table": docs_table(catalog),
    }


def capacity_rows(catalog: Catalog) -> list[Row]:
    """Memory each service may take (MiB, all its replicas) and the services that depend on it."""
    return [
        {
            "service": service.name,
            "limit_mib": service.memory_mib * service.replicas,
            "required": service.pi["required"],
            "needed_by": [other.name for other in catalog if service.name in other.depends_on],
        }
        for service in catalog
    ]


def capacity_plan(rows: Sequence[Mapping[str, Any]], ram_mib: int, reserve_mib: int) -> dict[str, Any]:
    """Whether the services (``rows`` of capacity_rows) fit into ``ram_mib`` less the host's ``reserve_mib``.

    ``could_switch_off`` names the services that are neither required nor needed by another, largest first.
    """
    largest_first = sorted(rows, key=lambda row: (-row["limit_mib"], row["service"]))
    services_mib = sum(row["limit_mib"] for row in rows)
    spare_mib = ram_mib - reserve_mib - services_mib
    return {
        "rows": [{key: row[key] for key in ("service", "limit_mib", "required")} for row in largest_first],
        "services_mib": services_mib,
        "reserve_mib": reserve_mib,
        "ram_mib": ram_mib,
        "spare_mib": spare_mib,
        "fits": spare_mib >= 0,
        "could_switch_off": [row["service"] for row in largest_first if not row["required"] and not row["needed_by"]],
    }


def render_plan(plan: Mapping[str, Any]) -> str:
    """The capacity plan as a table for a terminal; if it does not fit, with what could be done about it."""
    lines = [(row["service"], row["limit_mib"], "required" if row["required"] else "") for row in plan["rows"]]
    sums = [
        ("all services", plan["services_mib"], ""),
        ("reserved for the host", plan["reserve_mib"], ""),
        ("memory of this Pi", plan["ram_mib"], ""),
        ("spare" if plan["fits"] else "MISSING", abs(plan["spare_mib"]), ""),
    ]
    width = max(len(name) for name, _, _ in lines + sums)
    table = [f"{name:<{width}} {mib:>6} MiB  {note}".rstrip() for name, mib, note in lines + sums]
    table.insert(len(lines), "-" * (width + 11))
    if not plan["fits"]:
        table.append(f"Could be switched off (services_enabled): {', '.join(plan['could_switch_off']) or 'nothing'}")
    return "\n".join(table)


def images(catalog: Catalog) -> list[Row]:
    """The image of each service."""
    return [{"service": service.name, "image": service.image} for service in catalog]


def published_ports(catalog: Catalog) -> list[Row]:
    """Ports of the host that lead into a container; ``exposure`` says from where they may be reached."""
    return [
        {
            "service": service.name,
            "host_ip": port.host_ip,
            "host_port": port.host_port,
            "container_port": port.container_port,
            "protocol": port.protocol,
            "exposure": service.pi["exposure"],
        }
        for service in catalog
        for port in service.ports
    ]


def networks(catalog: Catalog) -> list[Row]:
    """Each network with its members, and whether its containers have a way out of the machine.

    An internal one has none, and neither has one whose bridge was given a name: the firewall does not let it pass.
    """
    defined = {name: spec for service in catalog for name, spec in service.defines["networks"].items()}
    return [
        {
            "name": name,
            "way_out": not spec.get("internal", False) and _BRIDGE_NAME not in spec.get("driver_opts", {}),
            "services": [service.name for service in catalog if name in service.networks],
        }
        for name, spec in sorted(defined.items())
    ]


def reach(catalog: Catalog) -> list[list[str]]:
    """Pairs of services that share a network; no other two can talk to each other."""
    return [
        [one.name, two.name] for one, two in itertools.combinations(catalog, 2) if set(one.networks) & set(two.networks)
    ]


def routes(catalog: Catalog) -> list[Row]:
    """Paths that the proxy forwards, the longest first; an empty ``upstream_path`` keeps the path."""
    found = [
        {
            "path": route["path"],
            "match": route["match"],
            "limit": route["limit"],
            "service": service.name,
            "host": service.name,
            "port": route["port"],
            "upstream_path": route.get("upstream_path", ""),
            "exposure": service.pi["exposure"],
        }
        for service in catalog
        for route in service.pi["routes"]
    ]
    return sorted(found, key=lambda route: (-len(route["path"]), route["path"]))


def databases(catalog: Catalog) -> list[Row]:
    """The databases that services need in PostgreSQL."""
    found = [{"service": service.name, **entry} for service in catalog for entry in service.pi["databases"]]
    return sorted(found, key=lambda entry: entry["name"])


def backup_manifest(catalog: Catalog) -> list[Row]:
    """What is backed up, and how; ``kind: none`` says what is not, and why. Database names are filled in."""
    names = [entry["name"] for entry in databases(catalog)]
    defaults = {"postgres": {"databases": names}}
    return [
        {"service": service.name, **defaults.get(entry["kind"], {}), **entry}
        for service in catalog
        for entry in service.pi["backup"]
    ]


def backup_services(catalog: Catalog) -> list[Row]:
    """What the backup program knows of the services, in the order in which they are started."""
    kept = backup_manifest(catalog)
    return [
        {
            "name": name,
            "image": catalog.services[name].image,
            "uid": catalog.services[name].uid,
            "gid": catalog.services[name].gid,
            "needs": list(catalog.services[name].depends_on),
            "databases": [entry["name"] for entry in catalog.services[name].pi["databases"]],
            "stores": [
                {key: value for key, value in entry.items() if key != "service"}
                for entry in kept
                if entry["service"] == name and entry["kind"] != "none"
            ],
        }
        for name in start_order(catalog)
    ]


def scrape_targets(catalog: Catalog) -> list[Row]:
    """What Prometheus scrapes."""
    return [
        {"service": service.name, "target": f"{service.name}:{metrics['port']}", "path": metrics["path"]}
        for service in catalog
        if (metrics := service.pi.get("metrics"))
    ]


def probes(catalog: Catalog) -> list[Row]:
    """How a service proves that it answers: ``kind`` http (port, path, status, tls) or exec (command)."""
    found = []
    for service in catalog:
        ((kind, probe),) = service.pi["probe"].items()
        found.append({"service": service.name, "kind": kind, **(probe if kind == "http" else {"command": list(probe)})})
    return found


def secret_files(catalog: Catalog) -> list[Row]:
    """Secrets that are mounted: the file, the user who may read it and the services that do; and root's, for dumps."""
    readers: dict[str, list[str]] = {}
    for service in catalog:
        for secret in service.secrets:
            readers.setdefault(secret, []).append(service.name)
    dumpers = sorted({entry["password_secret"] for entry in backup_manifest(catalog) if "password_secret" in entry})
    return [{"name": name, "path": f"{SECRETS_DIR}/{name}", "uid": 0, "gid": 0, "services": []} for name in dumpers] + [
        {
            "name": name,
            "path": f"{SECRETS_DIR}/{name}",
            "uid": catalog.services[services[0]].uid,
            "gid": catalog.services[services[0]].gid,
            "services": services,
        }
        for name, services in sorted(readers.items())
    ]


def secret_names(catalog: Catalog, derived: Iterable[str] = ()) -> list[str]:
    """Every secret that the vault has to hold: mounted ones and the automation's, less the ``derived``."""
    names: set[str] = set()
    for service in catalog:
        names.update(service.secrets, service.pi["secrets"])
        entries = (*service.pi["databases"], *service.pi["backup"])
        names.update(entry["password_secret"] for entry in entries if "password_secret" in entry)
    return sorted(names.difference(derived))


def docs_table(catalog: Catalog) -> list[Row]:
    """One row per service for the documentation."""
    return [
        {
            "service": service.name,
            "summary": service.pi["summary"],
            "image": service.image,
            "editions": list(service.pi["editions"]),
            "tier": service.pi["tier"],
            "exposure": service.pi["exposure"],
            "required": service.pi["required"],
            "memory_mib": service.memory_mib * service.replicas,
            "cpus": service.cpus,
            "backup": sorted({entry["kind"] for entry in service.pi["backup"] if entry["kind"] != "none"}),
        }
        for service in catalog
    ]

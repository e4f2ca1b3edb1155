"""A whole shop in a VPN: what opens by it, what opens by it alone, and that a rebuilt one is known to everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import mesh
import pytest
from mesh import PIS, Device

ONE, TWO = PIS
VPN = ["10.66.0.0/24", "fd66:66:66::/64"]
# By its name: where one looks from the VPN, and from the house.
INSIDE, OUTSIDE = "10.66.0.1", ONE.shared
EDITOR, WEBHOOK = "/", "/webhook/health-echo"


@pytest.fixture(scope="module")
def shop(both: machine.Finished) -> Callable[..., machine.Finished]:
    """Applies plays to the first machine, which has a shop, with variables that differ from then on."""
    push = ("molecule/shared/images.py", "push", "--registry", ONE.manage("registry"))
    pushed = machine.run("python", *push)
    assert pushed.status == 0, pushed.output

    def apply(*plays: str, **changes: Any) -> machine.Finished:
        names = [f"playbooks/{play}.yml" for play in plays]
        return mesh.converge(*names[1:], "--limit", "one", play=names[0], one=changes)

    mesh.converge("--limit", "one", play="site.yml")
    return apply


@pytest.fixture
def phone(shop: Callable[..., machine.Finished], device: Device) -> Device:
    """A device that is in the VPN, and in the network of the house too."""
    device.use(mesh.client("phone"))
    assert device.reaches(INSIDE)
    return device


def test_shop_opens_through_the_vpn_and_its_certificate_is_for_that_address(phone: Device) -> None:
    authority = ONE.shell("pi-commerce-entrance authority")
    phone.put("/authority.pem", authority)
    for address in (INSIDE, OUTSIDE):
        assert phone.status(f"https://{address}{EDITOR}", "--cacert", "/authority.pem") == 200
        assert phone.status(f"https://{address}{WEBHOOK}", "--cacert", "/authority.pem") == 200
    assert phone.opens(INSIDE, 22)


def test_networks_of_the_containers_are_closed_to_the_vpn(phone: Device) -> None:
    address = ONE.shell(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' pi-commerce-postgres-1"
    ).strip()
    inside = f"timeout 8 bash -c 'exec 3<>/dev/tcp/{address}/5432'"
    # It is there, and a device that asks the way sends its packets to the machine.
    ONE.shell(inside)
    phone.use(mesh.client("phone").replace("10.66.0.1/32", f"10.66.0.1/32, {address}/32"))
    assert phone.reaches(INSIDE)
    assert not phone.opens(address, 5432)
    dropped = ONE.shell("iptables -w -nvxL DOCKER-USER | awk '$3 == \"DROP\" { print $1 }'")
    assert int(dropped) > 0


@pytest.fixture
def chosen(shop: Callable[..., machine.Finished]) -> Iterator[Callable[..., machine.Finished]]:
    """The same as `shop`; afterwards the machine is as it was."""
    done: list[str] = []

    def apply(*plays: str, **changes: Any) -> machine.Finished:
        done.extend(play for play in plays if play not in done)
        return shop(*plays, **changes)

    yield apply
    shop(*done)


def test_editor_opens_through_the_vpn_alone_when_so_chosen(phone: Device, chosen: Callable[..., Any]) -> None:
    chosen("stack", proxy_sources={"editor": VPN})
    assert phone.status(f"https://{INSIDE}{EDITOR}") == 200
    assert phone.status(f"https://{OUTSIDE}{EDITOR}") == 403
    for address in (INSIDE, OUTSIDE):
        assert phone.status(f"https://{address}{WEBHOOK}") == 200


def test_whole_shop_behind_cloudflare_lets_in_the_vpn_and_no_stranger(
    phone: Device, chosen: Callable[..., Any]
) -> None:
    pull = ONE.shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pull -keyout /dev/null"
    )
    public = {"proxy_entrance": "cloudflare", "proxy_pull_authority": pull, "proxy_exposure": "public"}
    chosen("preflight", "network", "stack", "verify", **public)
    assert phone.status(f"https://{OUTSIDE}{WEBHOOK}") == 403
    assert phone.status(f"https://{OUTSIDE}{WEBHOOK}", "--insecure", "--header", "CF-Connecting-IP: 10.66.0.100") == 403
    assert phone.status(f"https://{OUTSIDE}/proxy-health") == 200
    assert phone.status(f"https://{INSIDE}{WEBHOOK}") == 200
    said = phone.run(f"curl --silent --insecure --dump-header - --output /dev/null https://{INSIDE}/")[1].lower()
    assert "strict-transport-security: max-age=31536000" in said


def test_what_is_for_the_vpn_alone_is_closed_to_the_house(phone: Device, chosen: Callable[..., Any]) -> None:
    ONE.shell("systemd-run --quiet --unit grafana python3 -m http.server 3000 --bind 0.0.0.0")
    ports = (22, 443, 3000)
    try:
        chosen(
            "network",
            ssh_exposure="vpn",
            proxy_exposure="vpn",
            # Whoever runs this is not in the VPN.
            firewall_sources={"ssh": [f"{ONE.network}.1/32"]},
            firewall_rules=[{"name": "grafana", "port": 3000, "protocol": "tcp", "exposure": "vpn"}],
        )
        assert [phone.opens(INSIDE, port) for port in ports] == [True, True, True]
        assert [phone.opens(OUTSIDE, port) for port in ports] == [False, False, False]
        chosen("network", access_vpn=[])
        assert [phone.opens(INSIDE, port) for port in ports] == [False, False, False]
        assert [phone.opens(OUTSIDE, port) for port in ports] == [True, True, False]
    finally:
        ONE.shell("systemctl stop grafana")


def lose() -> None:
    """The machine with its disks, and of the vault file all but what opens the far repository."""
    vault = ONE.state / "secrets.vault.yml"
    shown = machine.run("ansible-vault", "view", str(vault), environment=mesh.secret())
    assert shown.status == 0, shown.output
    [held] = [line for line in shown.output.splitlines() if line.startswith("backup_far_password: ")]
    ONE.manage("lose")
    vault.unlink()
    sealed = machine.run(
        *("ansible-vault", "encrypt", "--output", str(vault), "-"), stdin=held + "\n", environment=mesh.secret()
    )
    assert sealed.status == 0, sealed.output


def public_keys() -> dict[str, str]:
    """What lies in git about the members."""
    found: list[Path] = [*(mesh.STATE / "wireguard").glob("*.pub"), mesh.STATE / "wireguard/peers.yml"]
    return {path.name: path.read_text() for path in found}


def test_rebuilt_machine_is_known_to_everybody_by_its_old_key(
    shop: Callable[..., machine.Finished], device: Device
) -> None:
    config = mesh.client("phone")
    before = public_keys()
    authority = ONE.shell("pi-commerce-entrance authority")
    ONE.shell("pi-commerce-backup nightly --wait 300")
    lose()
    device.use(config)
    assert not device.reaches(INSIDE, tries=3)
    ONE.manage("up")
    mesh.converge("--limit", "one", play="rebuild.yml")
    # Nothing was done to the device or to the other machine.
    assert device.reaches(INSIDE, tries=60)
    assert mesh.reaches(TWO, INSIDE)
    assert public_keys() == before
    device.put("/authority.pem", authority)
    assert device.status(f"https://{INSIDE}{WEBHOOK}", "--cacert", "/authority.pem") == 200

"""`pi-commerce-entrance`: the certificate of the entrance, and who may come through it.

Exit codes: 0 done or nothing to do, 1 something went wrong (it says what), 2 refused.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import acme, cloudflare, files, settings, tls
from .errors import EntranceError, Refused
from .settings import Settings

DONE, WRONG, REFUSED = 0, 1, 2
NOTIFY = "pi-commerce-notify"
RENEW_DAYS = 30
ALARM_DAYS = 14
SHIPPED = "cloudflare-shipped.txt"


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(
        prog="pi-commerce-entrance", description="The entrance's certificate, and who may come."
    )
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    renew = verbs.add_parser("renew", help="make or renew the certificate where that is due (cron)")
    renew.add_argument("--force", action="store_true", help="although it is not due")
    addresses = verbs.add_parser("addresses", help="fetch Cloudflare's addresses (cron)")
    addresses.add_argument("--force", action="store_true", help="although half of them are gone")
    verbs.add_parser("apply", help="put everything in order with what is here, then renew (site.yml)")
    verbs.add_parser("authority", help="print the own authority's certificate, for devices to trust")
    verbs.add_parser("status", help="what is in force; exit code 1 where it ends soon")
    return top


class Entrance:
    """What is in force, and what takes its place."""

    def __init__(self, known: Settings) -> None:
        self.known = known
        self.certificate, self.key = known.proxy / "tls/cert.pem", known.proxy / "tls/key.pem"
        self.authority, self.authority_key = known.folder / "authority.pem", known.folder / "authority.key"
        self.networks, self.include = known.folder / "cloudflare.txt", known.proxy / "cloudflare.conf"

    def renew(self, force: bool = False) -> None:
        """Have a certificate that is valid for the names. Raises EntranceError; nginx has one in any case."""
        if self.known.given:
            return
        problem = None
        if self.known.way == "acme":
            try:
                self.install(*acme.obtain(self.known, force=force))
            except EntranceError as error:
                problem = error
        if self.known.way != "acme" or not self.sound():
            self.issue(force)
        if problem:
            raise problem

    def issue(self, force: bool) -> None:
        """A certificate of the own authority, where the one in force is not good for the next weeks."""
        names, there = self.known.names, files.read(self.certificate)
        due = not (
            self.sound()
            and tls.covers(there, names)
            and tls.lasts(there, RENEW_DAYS)
            and tls.issued_by(there, self.authority)
        )
        if not due and not force:
            return
        if not tls.lasts(files.read(self.authority), tls.LEAF_DAYS):
            self.found()
        try:
            made = tls.issue(self.authority, self.authority_key, names)
        except EntranceError:
            # It may not vouch for the names that the machine has now.
            self.found()
            made = tls.issue(self.authority, self.authority_key, names)
        self.install(*made)

    def found(self) -> None:
        """Begin a new authority."""
        again = self.authority.exists()
        certificate, key = tls.make_authority(self.known.host, self.known.names)
        files.write(self.authority_key, key, 0o600)
        files.write(self.authority, certificate, 0o644)
        print("a new authority: have devices trust what `pi-commerce-entrance authority` prints")
        if again:
            body = "The entrance has a new authority, because the old one may not vouch for its names or ends.\n"
            notify("warning", "entrance-authority", "devices have to trust a new certificate", body)

    def sound(self) -> bool:
        """Whether the pair in force belongs together and is valid today."""
        there = files.read(self.certificate)
        return tls.lasts(there, 0) and tls.belong(there, files.read(self.key))

    def install(self, certificate: str, key: str) -> None:
        """Put a pair into force, unless it is there already. Raises EntranceError for one that is not sound."""
        if (certificate, key) == (files.read(self.certificate), files.read(self.key)):
            return
        if not tls.belong(certificate, key) or not tls.lasts(certificate, 0):
            raise EntranceError("the new certificate is not valid or not of its key; the old one stays")
        self.certificate.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Cut off between the two, the pair is seen not to belong together, and made again.
        files.write(self.key, key, 0o400, self.known.owner)
        files.write(self.certificate, certificate, 0o444, self.known.owner)
        print(f"a new certificate, valid until {tls.ends(certificate)}")
        self.reload()

    def addresses(self, force: bool = False) -> None:
        """Fetch Cloudflare's addresses; people are told of a change. Raises EntranceError, what was there stays."""
        if self.known.way != "cloudflare":
            return
        old = self.listed()
        new = cloudflare.fetch(self.known.cloudflare_lists, self.known.cloudflare_authority)
        if not force:
            cloudflare.accept(new, old)
        if set(new) == set(old):
            return
        files.write(self.networks, "\n".join(new) + "\n", 0o600)
        self.include_networks()
        changes = [f"+ {line}" for line in sorted(set(new) - set(old))] + [
            f"- {line}" for line in sorted(set(old) - set(new))
        ]
        print("\n".join(["Cloudflare's addresses have changed:", *changes]))
        notify("info", "entrance-addresses", "Cloudflare's addresses have changed", "\n".join(changes) + "\n")

    def listed(self) -> list[str]:
        """The addresses in force: the last that were fetched, else those that came with the project."""
        path = self.networks if self.networks.exists() else self.known.folder / SHIPPED
        return cloudflare.parse(files.read(path), str(path))

    def include_networks(self) -> None:
        """Write them for nginx, where that says something else."""
        text = cloudflare.nginx(self.listed())
        if text != files.read(self.include):
            files.write(self.include, text, 0o644)
            self.reload()

    def reload(self) -> None:
        """Have nginx read its files anew. Raises Refused where it does not take them."""
        done = subprocess.run(["/bin/sh", "-c", self.known.reload], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"nginx goes on with what it had: {done.stderr.strip()[-300:]}")

    def tell(self, problem: EntranceError | None) -> None:
        """Have people know of a certificate that ends soon or that strangers do not trust, and of that being over."""
        there, stands_in = files.read(self.certificate), self.stands_in()
        if tls.lasts(there, ALARM_DAYS) and not stands_in:
            notify("", "entrance", "", "")
            return
        level = "warning" if tls.lasts(there, 3) else "critical"
        title = "no public certificate for the entrance" if stands_in else "the entrance's certificate ends soon"
        body = f"The certificate of the entrance is valid until {tls.ends(there) or 'never'}.\n{problem or ''}\n"
        notify(level, "entrance", title, body)

    def stands_in(self) -> bool:
        """Whether a public authority is to vouch, and what is in force is not what it has issued for this name."""
        if self.known.way != "acme" or self.known.given:
            return False
        return files.read(self.certificate) != files.read(acme.made(self.known) / "fullchain.pem")


def notify(level: str, key: str, title: str, body: str) -> None:
    """Tell people; an empty level takes back what was told under the key. Without the program, the journal has it."""
    command = [NOTIFY, "--key", key, *(["--level", level, title] if level else ["--clear"])]
    try:
        subprocess.run(command, input=body, text=True, capture_output=True, check=True)
    except FileNotFoundError:
        if level:
            print(f"{level}: {title}\n{body}")
    except subprocess.CalledProcessError as error:
        print(f"{NOTIFY}: {error.stderr.strip()}", file=sys.stderr)


def act(given: argparse.Namespace) -> int:
    """Do what was asked for; the exit code. Raises EntranceError."""
    entrance = Entrance(settings.load(given.settings))
    if given.verb == "status":
        there = files.read(entrance.certificate)
        print(f"{entrance.known.way}: valid until {tls.ends(there) or 'never'}")
        if entrance.stands_in():
            print("no public authority has vouched for it yet: pi-commerce-entrance renew says why")
            return WRONG
        return DONE if entrance.sound() and tls.lasts(there, ALARM_DAYS) else WRONG
    if given.verb == "authority":
        if not entrance.authority.exists():
            raise Refused("there is no authority here: it is made with the first certificate of the way `lan`")
        print(files.read(entrance.authority), end="")
        return DONE
    if given.verb == "addresses":
        try:
            entrance.addresses(given.force)
        except EntranceError as error:
            notify("warning", "entrance-list", "Cloudflare's addresses are not up to date", f"{error}\n")
            raise
        notify("", "entrance-list", "", "")
        return DONE
    if given.verb == "apply" and entrance.known.way == "cloudflare":
        entrance.include_networks()
    problem = None
    try:
        entrance.renew(getattr(given, "force", False))
    except EntranceError as error:
        problem = error
    if given.verb == "apply":
        # Its other files may have changed, too.
        entrance.reload()
    entrance.tell(problem)
    if problem:
        raise problem
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    try:
        if os.geteuid():
            raise Refused("is for root only: use sudo")
        return act(given)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except EntranceError as error:
        print(f"failed: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        print(f"failed: {error.filename}: {error.strerror}: is the disk full or worn out?", file=sys.stderr)
        return WRONG


if __name__ == "__main__":
    sys.exit(main())

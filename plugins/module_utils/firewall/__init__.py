"""The firewall, derived from the catalog, the inventory and the networks the machine is attached to. Pure.

``doors`` says who may reach what, ``ways`` where containers may go, ``files`` renders both for UFW, ``probe_plan`` the
doors for whoever looks from outside.
"""

from .doors import Door, FirewallError, Source, as_rows, doors, lockout, probe_plan, read_doors
from .ufw import files
from .ways import Ways, ways

__all__ = [
    "Door",
    "FirewallError",
    "Source",
    "Ways",
    "as_rows",
    "doors",
    "files",
    "lockout",
    "probe_plan",
    "read_doors",
    "ways",
]

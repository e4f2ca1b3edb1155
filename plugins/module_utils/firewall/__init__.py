"""The firewall, derived from the catalog, the inventory and the networks the machine is attached to. Pure.

``doors`` says who may reach what, ``files`` renders that for UFW, ``probe_plan`` for whoever looks from outside.
"""

from .doors import Door, FirewallError, Source, as_rows, doors, lockout, probe_plan, read_doors
from .ufw import files

__all__ = ["Door", "FirewallError", "Source", "as_rows", "doors", "files", "lockout", "probe_plan", "read_doors"]

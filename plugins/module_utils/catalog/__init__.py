"""The catalog: every container of the stack, read from one rendered Compose file each.

``load`` validates the files and returns a ``Catalog``; everything else is derived from that object by the
functions of ``derive``. Nothing here reads a file, talks to a host or knows Ansible. ``schema`` says what a
service may declare in ``x-pi``.
"""

from .derive import as_dict, capacity_plan, capacity_rows, render_plan
from .load import Catalog, CatalogError, load
from .service import Service

__all__ = [
    "Catalog",
    "CatalogError",
    "Service",
    "as_dict",
    "capacity_plan",
    "capacity_rows",
    "load",
    "render_plan",
]

"""Who sends webhooks: one module each, all of the shape of base.Provider."""

from __future__ import annotations

from typing import cast

from . import custom, meta, paypal, shipping, shopify, stripe, telegram
from .base import Provider

PROVIDERS: dict[str, Provider] = {
    module.__name__.rpartition(".")[2]: cast("Provider", module)
    for module in (shopify, stripe, paypal, shipping, telegram, meta, custom)
}

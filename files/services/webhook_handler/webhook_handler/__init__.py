"""Takes webhooks in, durably and once, and hands them to who has to act on them."""

__version__ = "1.0.0"

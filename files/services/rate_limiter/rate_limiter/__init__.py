"""Exact rate limits for third-party APIs, kept in Redis, asked over HTTP."""

__version__ = "1.0.0"

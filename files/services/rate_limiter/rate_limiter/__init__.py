"""Exact rate limits for third-party APIs, kept in Redis, asked over HTTP."""

__version__ = "0.1.0"

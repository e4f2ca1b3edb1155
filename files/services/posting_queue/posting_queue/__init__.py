"""Publishes the shop's posts when they are due, each exactly once, and sees how they do."""

__version__ = "1.0.0"

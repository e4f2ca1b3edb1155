"""Reads the project's source and turns it into the pages of `docs/` and the README of each role."""

"""Watches the disk with the data. Standard library alone, Python 3.10."""

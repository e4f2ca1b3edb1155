"""Backup and restore of the shop: runs on the Pi as root, with Python 3.9, Docker's client, restic and age."""

"""Keeps the machine up to date: restarts it when that is due and nobody is at work, upgrades engine and images."""

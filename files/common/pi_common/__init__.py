"""What the programs on the Pi share. Each gets it into a folder of its own, so that none depends on another.

Standard library alone, Python 3.9.
"""

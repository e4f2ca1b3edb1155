"""A name that follows the line's address: runs on the Pi as root, with Python 3.9 and nothing else."""

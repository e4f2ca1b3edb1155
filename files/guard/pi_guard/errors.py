"""What the program refuses."""


class Refused(Exception):
    """It cannot be done; the message says why and what to do. Nothing was changed."""

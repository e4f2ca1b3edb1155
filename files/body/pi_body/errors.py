"""What the programs cannot or will not do."""


class BodyError(Exception):
    """Something went wrong; the message says what and what to do."""


class Refused(BodyError):
    """It makes no sense, or its settings do not; the message says why. Nothing was changed."""

"""What stops the service from starting."""


class ConfigError(Exception):
    """A setting is wrong; the message names the variable or file, the key, and what is expected."""

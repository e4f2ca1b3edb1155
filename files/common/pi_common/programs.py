"""How a program ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .errors import Busy, PiError, Refused

DONE, WRONG, REFUSED, BUSY = 0, 1, 2, 75


def ended(action: Callable[[], int]) -> int:
    """Do it, as root; the exit code. What is wrong is said on standard error."""
    try:
        if os.geteuid():
            raise Refused("is for root only: use sudo")
        return action()
    except Busy as error:
        print(f"{error}; try again later", file=sys.stderr)
        return BUSY
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except PiError as error:
        print(f"failed: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        print(f"failed: {error.filename}: {error.strerror}: is the disk full or worn out?", file=sys.stderr)
        return WRONG

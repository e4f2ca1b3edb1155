"""An afternoon of a Pi in the sun, for the tests of the role thermal: what its board told, a look each.

Temperatures hover about every limit on the way up and down, as sensors do. At 82 degrees the firmware throttles, and
a dip of the supply lies between two looks: of that only the bit since the start tells.
"""

from __future__ import annotations

UP = (48.2, 55.1, 61.8, 64.9, 65.1, 64.6, 65.4, 64.8, 69.9, 70.2, 69.7, 74.6, 75.0, 74.4, 75.3, 74.1, 78.8, 79.9, 80.1)
TOP = (79.6, 80.4, 81.7, 82.3, 80.6, 79.8, 80.2, 79.1, 78.4)
DOWN = (
    75.9,
    74.8,
    75.1,
    73.0,
    71.2,
    70.3,
    70.0,
    69.8,
    70.2,
    69.5,
    66.0,
    64.7,
    65.2,
    64.1,
    63.0,
    62.4,
    61.7,
    58.0,
    52.9,
)
CELSIUS = (*UP, *TOP, *DOWN)
NEVER, THROTTLED, THROTTLED_BEFORE, DIPPED_BEFORE = 0x0, 0x40004, 0x40000, 0x50000


def bits(number: int) -> int:
    """get_throttled at a look."""
    if number < len(UP) + 3:
        return NEVER
    if number < len(UP) + 5:
        return THROTTLED
    return THROTTLED_BEFORE if number < len(UP) + len(TOP) else DIPPED_BEFORE


LOOKS = tuple((celsius, bits(number)) for number, celsius in enumerate(CELSIUS))

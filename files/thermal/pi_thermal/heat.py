"""What follows from a reading: levels with hysteresis, bits that are new, services to stop or to start. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from board import BITS
from pi_common.alerts import Alert

from .reading import Reading
from .settings import LEVELS, Settings

# So many looks in a row without a figure are none that was missed by chance.
BLIND_LOOKS = 4


@dataclass
class State:
    """What is remembered between two looks. Times are seconds since the kernel `boot` was started.

    `seen` says of each bit when it was last on, `past` which bits were known to be on since the start; `shed` has the
    services that are stopped, in the order in which they were, `stuck` those that would not, and why; `told` is what
    people know.
    """

    boot: str = ""
    level: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    past: list[str] = field(default_factory=list)
    blind: int = 0
    shed: list[str] = field(default_factory=list)
    shed_at: float = 0
    stuck: dict[str, str] = field(default_factory=dict)
    percent: int = 0
    told: dict[str, str] = field(default_factory=dict)

    def wake(self, boot: str) -> None:
        """Another boot begins with bits and times of its own; what is stopped is so still."""
        if boot != self.boot:
            self.boot, self.seen, self.past, self.shed_at = boot, {}, [], 0


def level(before: int, celsius: float, limits: Mapping[str, float], hysteresis: float) -> int:
    """How many of LEVELS are reached: up at a limit, down only where it is left by more than the hysteresis."""
    reached = sum(celsius >= limits[name] for name in LEVELS)
    kept = sum(celsius > limits[name] - hysteresis for name in LEVELS)
    return max(reached, min(before, kept))


def take_in(known: Settings, state: State, reading: Reading, now: float) -> None:
    """Note what a reading says. What is not known changes nothing, but for being noticed."""
    state.blind = min(state.blind + 1, BLIND_LOOKS) if reading.celsius is None else 0
    if reading.celsius is not None:
        state.level = level(state.level, reading.celsius, known.celsius, known.hysteresis)
    for name in BITS:
        if reading.now[name] or (reading.past[name] and name not in state.past):
            state.seen[name] = now
        elif now - state.seen.get(name, now) > known.quiet_minutes * 60:
            del state.seen[name]
    state.past = [name for name in BITS if (name in state.past if reading.past[name] is None else reading.past[name])]


def critical(known: Settings, celsius: float | None) -> bool:
    """Whether it is known to be too hot."""
    return celsius is not None and celsius >= known.celsius["critical"]


def to_stop(known: Settings, state: State, celsius: float | None, now: float) -> str:
    """The next service to stop; nothing where it is not too hot, or where the last one has not had its time to help."""
    left = [name for name in known.shed if name not in state.shed]
    if not critical(known, celsius) or not left:
        return ""
    return left[0] if not state.shed_at or now - state.shed_at >= known.shed_seconds else ""


def to_start(known: Settings, state: State, celsius: float | None) -> list[str]:
    """The services to start, the last that was stopped first. One that may not be stopped any more comes back, too."""
    cool = celsius is not None and celsius < known.celsius["restore"]
    return [name for name in reversed(state.shed) if cool or name not in known.shed]


def percent(known: Settings, before: int, celsius: float | None) -> int:
    """How fast the fan is to turn; slower only when it is cooler by more than the hysteresis, blind at its most."""
    if celsius is None:
        return 100
    up = max((speed for degrees, speed in known.curve if celsius >= degrees), default=0)
    down = max((speed for degrees, speed in known.curve if celsius > degrees - known.hysteresis), default=0)
    return max(up, min(before, down))


def due(known: Settings, state: State, reading: Reading) -> Iterator[Alert]:
    """What people have to know now."""
    for reached, name in enumerate(LEVELS, 1):
        if state.level >= reached:
            shown = "not known now" if reading.celsius is None else f"{reading.celsius:.1f} degrees Celsius"
            yield Alert(
                f"thermal-{name}",
                "critical" if name == "critical" else "warning",
                f"The Pi is {'too hot' if name == 'critical' else 'hot' if name == 'high' else 'warm'}",
                f"It is {shown}, {name} begins at {known.celsius[name]:g}; it slows down at 80. "
                "See to its fan, case and place. On the Pi: pi-commerce-thermal status",
                "The Pi is cool again" if reached == 1 else "",
            )
    for name in state.seen:
        bit = BITS[name]
        # Too little voltage comes before damaged data.
        weight = "critical" if name == "under_voltage" else "warning"
        yield Alert(
            f"thermal-{name}", weight, f"The Pi has a problem: {bit.words}", f"Its firmware says so; {bit.remedy}."
        )
    if state.blind >= BLIND_LOOKS:
        yield Alert(
            "thermal-blind",
            "warning",
            "The Pi's temperature cannot be read",
            f"Nothing of use is in {known.root}/sys/class/thermal: nobody would notice that it is too hot. "
            "Start it again; is its kernel the board's own?",
        )
    for service in state.shed:
        yield Alert(
            f"thermal-shed-{service}",
            "critical",
            f"{service} was stopped because the Pi is too hot",
            f"It comes back by itself below {known.celsius['restore']:g} degrees Celsius (thermal_shed).",
            f"{service} runs again",
        )
    for service, problem in state.stuck.items():
        yield Alert(f"thermal-stuck-{service}", "critical", f"{service} cannot be stopped or started", problem)

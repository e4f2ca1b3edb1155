"""A virtual Pi whose runs are cut off at chosen moments: the driver behind test_interruptions.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

import docker
import images
import machine
import virtual_pi

HERE = Path(__file__).parent
WATCH = (HERE / "on_pi/watch.py").read_text()
DIGEST = (HERE / "on_pi/digest.py").read_text()
MOMENT_SECONDS = 300
START_SECONDS = 60
RUN_SECONDS = 1200


@dataclass(frozen=True)
class Point:
    """A moment of a run, and what is killed then.

    `task` is the end of a task's name. `kill`: controller (the run and its SSH connections; what runs on the Pi goes
    on), line (sshd's processes alone), session (they and all below them; Ansible then tries the task again), run (both
    ends), engine (dockerd), power (the whole Pi).
    The moment is one of those that on_pi/watch.py knows, or `on_controller`, an audit event of the controller; without
    any it is the beginning of the task.
    """

    task: str
    kill: str
    process: str = ""
    path: str = ""
    step: tuple[str, str, int] | tuple[()] = ()
    shell: str = ""
    on_controller: tuple[str, str] | tuple[()] = ()

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kill} at {self.task!r} {self.process or ' '.join(map(str, self.step))}".strip()

    @property
    def watched(self) -> bool:
        """Whether the moment is seen on the Pi."""
        return bool(self.process or self.step or self.shell)


@dataclass(frozen=True)
class Pi:
    """A virtual Pi beside the one that the other tests share."""

    name: str
    network: str
    state: Path
    # What its runs carry out.
    book: str = "site.yml"
    sockets: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pi-commerce-")))

    @property
    def environment(self) -> dict[str, str | None]:
        """What makes the project's commands work on this one."""
        return {
            "PI_STATE": str(self.state),
            "PI_NAME": self.name,
            "PI_NETWORK": self.network,
            "PI_ADDRESS": self.settings.address,
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.state / "vault-password"),
            # Connections of its own, to find and to end.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.sockets),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "barrier",
        }

    @property
    def settings(self) -> virtual_pi.Settings:
        """The same for the module that starts virtual Pis."""
        suite = machine.ENVIRONMENT.get("PI_SUITE", "trixie")
        return virtual_pi.Settings(self.state, self.name, self.network, suite, images.host_arch(), "4g")

    @property
    def vault(self) -> Path:
        """Its secrets."""
        return self.state / "secrets.vault.yml"

    @classmethod
    def shared(cls) -> Pi:
        """The one that the other tests share."""
        return cls(str(machine.ENVIRONMENT["PI_NAME"]), machine.NETWORK, machine.STATE)

    @classmethod
    def beside(cls) -> Pi:
        """Another, in the network after the bare one's."""
        first, second, third = machine.NETWORK.split(".")
        name, state = machine.ENVIRONMENT["PI_NAME"], machine.STATE
        return cls(f"{name}-cut", f"{first}.{second}.{int(third) + 2}", state.with_name(f"{state.name}-cut"))

    def secrets(self) -> str:
        """All secrets, one to a line."""
        shown = machine.run("ansible-vault", "view", str(self.vault), environment=self.quiet)
        assert shown.status == 0, shown.output
        return shown.output

    def module(self, name: str, arguments: str) -> machine.Finished:
        """Run one module of the project on the Pi, as root."""
        command = ("ansible", "-i", "inventory/virtual", "pis", "--become", "-m", name, "-a", arguments)
        return machine.run(*command, environment=self.quiet)

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hand in an order at the entrance; the answer. The first certificate is signed by nobody."""
        sent = urllib.request.Request(
            f"https://{self.settings.address}/webhook/order-intake",
            data=json.dumps(order).encode(),
            headers={"Content-Type": "application/json"},
        )
        certificate = self.shell("cat /etc/pi-commerce/proxy/tls/cert.pem")
        context = ssl.create_default_context(cadata=certificate)
        with urllib.request.urlopen(sent, context=context, timeout=60) as answer:
            return dict(json.load(answer))

    @property
    def quiet(self) -> dict[str, str | None]:
        """The environment of commands that nobody holds up."""
        return {**self.environment, "ANSIBLE_CALLBACKS_ENABLED": None}

    def make(self, *arguments: str) -> None:
        """Run make for this Pi; it must succeed."""
        done = machine.run("make", *arguments, environment=self.quiet)
        assert done.status == 0, done.output[-6000:]

    def exec(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the Pi as root, without its sshd."""
        argv = ["docker", "exec", "-i", self.settings.container, *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, **options)

    def shell(self, script: str) -> str:
        """Output of a shell script on the Pi; it must succeed."""
        done = self.exec("bash", "-euo", "pipefail", "-s", input=script)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def digest(self) -> dict[str, Any]:
        """What the runs have made of this Pi, see on_pi/digest.py."""
        done = self.exec("python3", "-c", DIGEST, self.settings.address)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def cut_power(self) -> None:
        """Kill everything on the Pi at once."""
        docker.from_env().containers.get(self.settings.container).kill()

    def give_power(self) -> None:
        """Start it again and wait until it can be reached."""
        virtual_pi.ensure_pi(docker.from_env(), self.settings)

    def processes(self) -> set[int]:
        """What this Pi's runs are here: Ansible, its workers, which are sessions of their own, and SSH clients."""
        ours = str(self.sockets).encode()
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # An SSH client that stays writes its title over its environment.
                if ours in (entry / "environ").read_bytes() or ours in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
        return found


class Watcher:
    """on_pi/watch.py, armed."""

    def __init__(self, pi: Pi, point: Point) -> None:
        kill = {"controller": "hold", "power": "hold"}.get(point.kill, point.kill)
        spec = {**asdict(point), "kill": kill, "seconds": MOMENT_SECONDS}
        self.process = subprocess.Popen(
            ["docker", "exec", "-i", pi.settings.container, "python3", "-u", "-c", WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.send(json.dumps(spec))
        assert self.line() == "armed"

    @property
    def output(self) -> IO[str]:
        """Becomes readable at the moment."""
        assert self.process.stdout
        return self.process.stdout

    def line(self) -> str:
        """The next line it prints; empty when it has ended."""
        return self.output.readline().strip()

    def send(self, text: str) -> None:
        """Give it a line."""
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let what is held go on, and wait for the end."""
        with suppress(BrokenPipeError):
            self.send("go on")
        self.process.communicate(timeout=60)

    def abandon(self) -> None:
        """End the client; its Pi is dead."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Outcome:
    """How one run ended, and the points at which it was interrupted."""

    status: int
    output: str
    points: list[Point]


class Run:
    """One `ansible-playbook` that waits at each task."""

    def __init__(self, pi: Pi, *arguments: str) -> None:
        self.pi = pi
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the run
        address = str(pi.sockets / "barrier")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(1)
            listener.settimeout(START_SECONDS)
            self.process = subprocess.Popen(
                ["ansible-playbook", "-i", "inventory/virtual", pi.book, *arguments],
                cwd=machine.ROOT,
                env={
                    **machine.ENVIRONMENT,
                    **{key: value for key, value in pi.environment.items() if value},
                    "BARRIER_SOCKET": address,
                },
                stdout=self.log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                self.barrier = Connection(listener.accept()[0].detach())
            except TimeoutError:
                self.kill()
                raise AssertionError(f"no run began:\n{self.output()}") from None
        Path(address).unlink()

    def kill(self) -> None:
        """End the controller: Ansible with all its workers, and its connections.

        They stand still first: a worker that sees its connection end would make another and go on with its task.
        """
        held: set[int] = set()
        while fresh := self.pi.processes() - held:
            send(fresh, signal.SIGSTOP)
            held |= fresh
        send(held, signal.SIGKILL)

    def task(self, seconds: float = RUN_SECONDS) -> str | None:
        """The task that is about to begin; None at the end of the run."""
        assert self.barrier.poll(seconds), f"no task began within {seconds} s:\n{self.output()[-3000:]}"
        try:
            return str(self.barrier.recv())
        except (EOFError, ConnectionResetError):
            return None

    def go(self, ambush: tuple[str, str] | tuple[()] = ()) -> None:
        """Let the task begin."""
        self.barrier.send(ambush or None)

    def output(self) -> str:
        """What it has printed so far."""
        self.log.seek(0)
        return self.log.read()

    def interrupt(self, point: Point) -> None:
        """Let the task begin and kill at the point; it must be reached."""
        if point.on_controller:
            self.go(point.on_controller)
            assert self.task() is None, f"{point.name}: was not reached"
            self.kill()
        elif not point.watched:
            self.kill()
        else:
            watcher = Watcher(self.pi, point)
            self.go()
            ready = wait([self.barrier, watcher.output.fileno()], MOMENT_SECONDS)
            reached = watcher.output.fileno() in ready and watcher.line() == "reached"
            if point.kill in ("controller", "run", "power") or not reached:
                self.kill()
            if point.kill == "power" and reached:
                self.pi.cut_power()
                watcher.abandon()
                self.pi.give_power()
            else:
                watcher.end()
            assert reached, f"{point.name}: the work was over before it was seen:\n{self.output()[-3000:]}"

    def end(self) -> int:
        """Wait for the end; the exit status."""
        self.process.wait(timeout=60)
        self.barrier.close()
        return self.process.returncode


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal those that still live."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def run(pi: Pi, points: list[Point], *arguments: str, before: Callable[[Point], None] | None = None) -> Outcome:
    """One run of the site, interrupted at those of the points (taken from the list, in order) that it lives to see.

    `before` is called when a point's task is about to begin.
    """
    started = Run(pi, *arguments)
    met: list[Point] = []
    try:
        while (task := started.task()) is not None:
            if points and task.endswith(points[0].task):
                met.append(points.pop(0))
                if before:
                    before(met[-1])
                started.interrupt(met[-1])
            else:
                started.go()
    except BaseException:
        started.kill()
        raise
    return Outcome(started.end(), started.output(), met)


def runs(
    pi: Pi, points: list[Point], *arguments: str, before: Callable[[Point], None] | None = None
) -> Iterator[Outcome]:
    """Run again and again until each point was met and a run has ended well. Only one that was cut off may fail."""
    left = list(points)
    while True:
        outcome = run(pi, left, *arguments, before=before)
        yield outcome
        if outcome.status == 0:
            assert not left, f"{left[0].name}: no such task, or nothing to do in it:\n{outcome.output[-3000:]}"
            return
        assert outcome.points, f"a run that nobody cut off failed:\n{outcome.output[-6000:]}"


def differences(before: Any, after: Any, path: str = "") -> set[str]:
    """Where two digests differ, as paths of keys."""
    if isinstance(before, dict) or isinstance(after, dict):
        before, after = before or {}, after or {}
        keys = before.keys() | after.keys()
        return {place for key in keys for place in differences(before.get(key), after.get(key), f"{path}>{key}")}
    return set() if before == after else {f"{path.lstrip('>')}: {before!r} -> {after!r}"}

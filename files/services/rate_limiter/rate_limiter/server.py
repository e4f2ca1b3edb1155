"""The service put together: policies that follow their file, the limiter, the front."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from .api import Api, load_callers
from .config import Config
from .errors import ConfigError
from .http_front import Front
from .limiter import Limiter
from .metrics import Metrics
from .policies import load_policies

_RELOAD_SECONDS = 1.0
_STOP_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Server:
    """One service."""

    def __init__(self, config: Config) -> None:
        """Read what it is to serve. Raises ConfigError."""
        self._config = config
        self._seen = _state(config.policies)
        policies = load_policies(config.policies)
        callers = load_callers(config.callers) if config.callers else {}
        self.limiter = Limiter(config)
        self._metrics = Metrics(policies, callers.values())
        self.api = Api(self.limiter, policies, self._metrics, callers)
        self._front = Front(self.api.handle)
        self.port = 0
        self.apis = list(policies)

    async def start(self) -> None:
        """Begin to connect to Redis and to listen; Redis may come later."""
        self.limiter.start()
        self.port = await self._front.start(self._config.host, self._config.port)
        self._reloader = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Answer what was asked, then end."""
        self._reloader.cancel()
        await self._front.stop(_STOP_SECONDS)
        await self.limiter.close()

    async def _follow(self) -> None:
        """Read the policies anew when their file has changed. Wrong ones are not taken."""
        while True:
            await asyncio.sleep(_RELOAD_SECONDS)
            state = _state(self._config.policies)
            if state == self._seen:
                continue
            self._seen = state
            try:
                policies = load_policies(self._config.policies)
            except ConfigError as error:
                self._metrics.reload_errors += 1
                _log.error("the policies before stay in force: %s", error)
                continue
            self.api.use(policies)
            _log.info("new policies, limits of %s", ", ".join(policies))


def _state(path: Path) -> tuple[int, ...]:
    """What differs when a file was written or replaced."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ino, found.st_size)

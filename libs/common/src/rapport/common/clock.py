"""Time as a port: the system's clock in production, one that is turned by hand in tests and drills.

All times are aware UTC. Waiting goes through the clock as well, so a test of four hours takes none,
and a demo's day passes while somebody watches.
"""

import asyncio
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

GLANCE_SECONDS: Final = 0.02

_OFFSET: Final = struct.Struct("<q")  # microseconds


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time."""


class _Wait:
    """A wait of `seconds`: over when its clock is past them or so much real time has passed.

    So a clock that is put back makes nobody wait for longer.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._until = clock.now() + timedelta(seconds=seconds)
        self._real_until = monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        by_clock = (self._until - self._clock.now()).total_seconds()
        return min(by_clock, self._real_until - monotonic())


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of real time."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until it is moved; sleepers wake when it passes their time."""

    def __init__(self, now: datetime) -> None:
        self._now = now.astimezone(UTC)
        self._moved = asyncio.Event()

    def now(self) -> datetime:
        """Return the time that the clock was last moved to."""
        return self._now

    def move_to(self, moment: datetime) -> None:
        """Move forward to `moment`; a clock never goes back."""
        self._now = max(self._now, moment.astimezone(UTC))
        self._moved.set()
        self._moved = asyncio.Event()

    def move(self, delta: timedelta) -> None:
        """Move forward by `delta`."""
        self.move_to(self._now + delta)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved by `seconds`."""
        until = self._now + timedelta(seconds=seconds)
        while self._now < until:
            await self._moved.wait()


class JumpingClock(ManualClock):
    """Real time plus the jumps that were made: a demo skips what nobody wants to watch."""

    def __init__(self, now: datetime) -> None:
        super().__init__(now)
        self._machine = SystemClock()
        self._offset = self._now - self._machine.now()

    def now(self) -> datetime:
        """Return the machine's time moved by all jumps."""
        return self._machine.now() + self._offset

    def move_to(self, moment: datetime) -> None:
        """Jump forward to `moment`."""
        self._offset += max(timedelta(), moment.astimezone(UTC) - self.now())
        super().move_to(moment)

    def move(self, delta: timedelta) -> None:
        """Jump forward by `delta`."""
        self.move_to(self.now() + delta)

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed or been jumped over."""
        wait = _Wait(self, seconds)
        while (left := wait.left()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), left)


class LeadingClock(JumpingClock):
    """A jumping clock that other processes follow: its offset from the machine's is in a file."""

    def __init__(self, now: datetime, file: Path) -> None:
        super().__init__(now)
        self._file = file
        self._tell()

    def move_to(self, moment: datetime) -> None:
        """Jump forward to `moment`, and all that follow with it."""
        super().move_to(moment)
        self._tell()

    def _tell(self) -> None:
        written = self._file.with_name(f"{self._file.name}.new")
        written.write_bytes(_OFFSET.pack(self._offset // timedelta(microseconds=1)))
        written.replace(self._file)


class FollowingClock:
    """The time of a `LeadingClock` in another process, known by its file.

    Sleepers look whether it has jumped every 20 ms, so this is for demos and drills.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        """Return the machine's time moved by all jumps of the leader."""
        (offset,) = _OFFSET.unpack(self._file.read_bytes())
        return datetime.now(UTC) + timedelta(microseconds=offset)

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed or been jumped over."""
        wait = _Wait(self, seconds)
        while (left := wait.left()) > 0:  # noqa: ASYNC110 - no event
            await asyncio.sleep(min(left, GLANCE_SECONDS))


def clock_led_by(file: Path | None) -> Clock:
    """Return the clock that follows the one of `file`, the machine's where there is none."""
    return SystemClock() if file is None else FollowingClock(file)

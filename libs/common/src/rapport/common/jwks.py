"""The identity provider's keys, followed at the address where it publishes them.

They are fetched at the start, without which a service does not begin, and again every ten minutes
or as often as the provider's Cache-Control asks, within bounds; so a key that is taken back is
refused that soon, remembered tokens included. A token that names a key not seen yet has them
fetched at once, which strangers cannot make happen more than twice a minute. While the provider
does not answer, the keys at hand go on counting for a day.

What is fetched comes over https (plain http only from this machine), is read up to 1 MiB and for
five seconds, and is not looked for anywhere else: redirects are not followed. A proxy and
certificates of one's own are the environment's matter (HTTPS_PROXY, SSL_CERT_FILE).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

import httpx2
import structlog
from joserfc.jwk import KeySet

from rapport.common.auth import Verifier, read_key_set
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import Invalid, TemporaryError, pause_after, reason_of
from rapport.common.settings import PREFIX, Settings

SIZE_LIMIT: Final = 1024 * 1024
FETCH_SECONDS: Final = 5.0
SHORTEST_SECONDS: Final = 60.0
REFRESH_SECONDS: Final = 600.0
LONGEST_SECONDS: Final = 3_600.0
"""After how long keys are fetched again: at least, unless the provider says, and at most."""

ASKING_PAUSE: Final = timedelta(seconds=30)
"""How long after a fetch that a token asked for the next token can ask for one."""

KEPT_FOR: Final = timedelta(hours=24)
"""How long keys count while the provider does not answer."""

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})\b", re.I)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_verifier(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Verifier]:
    """Give the verifier that the settings ask for; while the block runs, its keys are kept fresh.

    Raises Invalid for a setting that is wrong or a file without keys, TemporaryError where the
    identity provider does not answer with keys: whoever runs the process starts it again then.
    """
    issuer, audience = settings.auth_issuer, settings.auth_audience
    if settings.auth_jwks_url is None:
        yield Verifier.from_file(settings.auth_keys, issuer, audience)
        return
    url = checked_address(settings.auth_jwks_url)
    async with httpx2.AsyncClient(
        timeout=FETCH_SECONDS, follow_redirects=False, trust_env=not _is_here(url.host)
    ) as client:
        keys, fresh_for = await fetch(client, url)
        verifier = Verifier(keys, issuer, audience)
        async with _following(verifier, client, url, fresh_for, clock or SystemClock()):
            yield verifier


def checked_address(address: str) -> httpx2.URL:
    """Return `address` as a URL; raises Invalid unless nobody on the way can change the answer."""
    with suppress(httpx2.InvalidURL):
        url = httpx2.URL(address)
        if url.host and (url.scheme == "https" or (url.scheme == "http" and _is_here(url.host))):
            return url
    raise Invalid(f"{PREFIX}AUTH_JWKS_URL: expected https://..., or http://... of this machine")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def fetch(client: httpx2.AsyncClient, url: httpx2.URL) -> tuple[KeySet, float]:
    """Return the keys at `url`, and the seconds after which they are to be fetched again.

    Raises TemporaryError, with the reason, for every answer that brings none.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            response, body = await _get(client, url)
        return read_key_set(json.loads(body)), _fresh_for(response)
    except (TimeoutError, httpx2.TimeoutException):
        reason = f"has not answered within {FETCH_SECONDS:.0f} seconds"
    except httpx2.HTTPError as error:
        reason = f"cannot be reached ({type(error).__name__})"
    except (ValueError, RecursionError):
        reason = "has answered with something that is not JSON"
    except Invalid as refusal:
        reason = f"has answered with no key set: {refusal.reason}"
    raise _trouble(reason)


def _trouble(reason: str) -> TemporaryError:
    return TemporaryError(f"{PREFIX}AUTH_JWKS_URL: the identity provider {reason}")


async def _get(client: httpx2.AsyncClient, url: httpx2.URL) -> tuple[httpx2.Response, bytes]:
    """Return the answer 200 and its body as it came: what is compressed could grow past limits."""
    headers = {
        "Accept": "application/jwk-set+json, application/json",
        "Accept-Encoding": "identity",
    }
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            raise _trouble(f"has answered with status {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > SIZE_LIMIT:
                raise _trouble(f"has answered with over {SIZE_LIMIT // 1024 // 1024} MiB")
        return response, bytes(body)


def _fresh_for(response: httpx2.Response) -> float:
    told = _MAX_AGE.search(response.headers.get("cache-control", ""))
    wanted = float(told[1]) if told else REFRESH_SECONDS
    return min(max(wanted, SHORTEST_SECONDS), LONGEST_SECONDS)


class _Following:
    """Keeps a verifier's keys as they are published; one fetch at a time, whoever wants it."""

    def __init__(
        self,
        verifier: Verifier,
        client: httpx2.AsyncClient,
        url: httpx2.URL,
        fresh_for: float,
        clock: Clock,
    ) -> None:
        self._verifier = verifier
        self._client = client
        self._url = url
        self._clock = clock
        self._pause = fresh_for
        self._failures = 0
        self._fetched_at = self._may_be_asked_at = clock.now()
        self._fetching: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Fetch the keys whenever it is time."""
        while True:
            await self._clock.sleep(self._pause)
            await self._one_fetch()

    async def look_again(self) -> None:
        """Return once the keys have been fetched, if that has not been asked for lately."""
        now = self._clock.now()
        if self._fetching is None:
            if now < self._may_be_asked_at <= now + ASKING_PAUSE:
                return
            self._may_be_asked_at = now + ASKING_PAUSE
        await asyncio.shield(self._one_fetch())

    async def stop(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _one_fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            keys, self._pause = await fetch(self._client, self._url)
        except Exception as error:
            self._failures += 1
            self._pause = pause_after(error, self._failures)
            age = self._clock.now() - self._fetched_at
            log.warning(
                "keys.not_fetched",
                reason=reason_of(error),
                age=age.total_seconds(),
                exc_info=not isinstance(error, TemporaryError),
            )
            if age > KEPT_FOR and self._verifier.use(KeySet([])):
                log.error("keys.dropped", reason="the provider has not answered for too long")
        else:
            self._failures = 0
            self._fetched_at = self._clock.now()
            if self._verifier.use(keys):
                log.info("keys.changed", kids=[key.kid for key in keys])


@asynccontextmanager
async def _following(
    verifier: Verifier, client: httpx2.AsyncClient, url: httpx2.URL, fresh_for: float, clock: Clock
) -> AsyncIterator[None]:
    keys = _Following(verifier, client, url, fresh_for, clock)
    verifier.look_again = keys.look_again
    following = asyncio.create_task(keys.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait({following})
        await keys.stop()

"""The identity provider's keys: followed where it publishes them, whatever it does meanwhile."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import Key, OctKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from rapport.common import jwks
from rapport.common.auth import UnknownKey, Verifier
from rapport.common.clock import ManualClock
from rapport.common.errors import Invalid, TemporaryError, Unauthorized
from rapport.common.jwks import checked_address, open_verifier
from rapport.common.serving import listening
from rapport.common.settings import Settings
from rapport.common.testing import MORNING

ISSUER = "https://id.example"
OLD = OKPKey.generate_key("Ed25519", {"kid": "old"})
NEW = RSAKey.generate_key(2048, {"kid": "new"})


class WatchedClock(ManualClock):
    """A clock that tells when whoever follows the keys sleeps, with nothing left to do."""

    def __init__(self, now: datetime) -> None:
        super().__init__(now)
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await super().sleep(seconds)
        self.asleep.clear()


@dataclass
class Provider:
    """An identity provider, as a web server of its own."""

    port: int = 0
    keys: Sequence[Key] = (OLD,)
    headers: dict[str, str] = field(default_factory=dict)
    answer: Response | None = None
    slow: asyncio.Event | None = None
    asked: int = 0
    asking: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, _: Request) -> Response:
        """Answer as we have been told to."""
        self.asked += 1
        self.asking.set()
        if self.slow is not None:
            await self.slow.wait()
        if self.answer is not None:
            return self.answer
        keys = [key.as_dict(private=False) for key in self.keys]
        return Response(json.dumps({"keys": keys}), headers=self.headers)

    async def elsewhere(self, _: Request) -> Response:
        """Publish good keys where nobody is to look for them."""
        keys = [key.as_dict(private=False) for key in self.keys]
        return Response(json.dumps({"keys": keys}))

    def verifier(self, clock: WatchedClock) -> AbstractAsyncContextManager[Verifier]:
        """Follow the keys that are published here."""
        settings = Settings.load(
            auth_jwks_url=f"http://127.0.0.1:{self.port}/keys",
            auth_issuer=ISSUER,
            auth_audience="rapport",
        )
        return open_verifier(settings, clock)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    routes = [Route("/keys", provider.publish), Route("/elsewhere", provider.elsewhere)]
    async with listening(Starlette(routes=routes), "127.0.0.1", 0) as port:
        provider.port = port
        yield provider


@pytest.fixture
def clock() -> WatchedClock:
    return WatchedClock(MORNING)


def token(key: Key, **changed: Any) -> str:
    """Return a token that the provider has signed with `key`."""
    algorithm = {"OKP": "Ed25519", "RSA": "RS256", "oct": "HS256"}[key.key_type]
    claims = {"iss": ISSUER, "aud": "rapport", "sub": "ana", "roles": ["agent"], "exp": 4e9}
    header = {"alg": algorithm, "kid": key.kid}
    return jwt.encode(header, claims | changed, key, algorithms=[algorithm])


async def called_with(verifier: Verifier, token: str) -> str:
    """Return who a request with this token is from."""
    return (await verifier.authorize(f"Bearer {token}", "case.work")).subject


async def fetched_after(provider: Provider, clock: WatchedClock, **delta: float) -> None:
    """Let time pass, after which the provider is asked in the background."""
    asked = provider.asked
    await pass_(clock, **delta)
    assert provider.asked == asked + 1


async def pass_(clock: WatchedClock, **delta: float) -> None:
    """Let time pass, and what then happens in the background happen."""
    await clock.asleep.wait()
    clock.move(timedelta(**delta))
    await asyncio.sleep(0)  # who is woken by it
    await asyncio.sleep(0)  # goes on
    await clock.asleep.wait()


# at the start


async def test_tokens_are_checked_with_the_keys_that_the_provider_publishes(
    provider: Provider, clock: WatchedClock
) -> None:
    provider.keys = (OLD, NEW)
    async with provider.verifier(clock) as verifier:
        assert await called_with(verifier, token(OLD)) == "ana"
        assert await called_with(verifier, token(NEW)) == "ana"
    assert provider.asked == 1


async def test_only_what_the_provider_means_for_us_counts(
    provider: Provider, clock: WatchedClock
) -> None:
    secret = OctKey.generate_key(256, {"kid": "secret"})
    provider.keys = (OLD, secret)
    none = token(OLD).split(".")
    none[0] = "eyJhbGciOiJub25lIn0"
    async with provider.verifier(clock) as verifier:
        for bad in (
            token(OLD, iss="https://elsewhere.example"),
            token(OLD, aud="something"),
            token(OLD, exp=1),
            token(OLD, roles=["emperor"]),
            token(OKPKey.generate_key("Ed25519", {"kid": "old"})),
            token(secret),
            ".".join(none),
            ".".join((*none[:2], "")),
        ):
            with pytest.raises(Unauthorized):
                await called_with(verifier, bad)


def junk() -> Sequence[Any]:
    """Return answers that bring no keys, each with what is told of it."""
    good = json.dumps({"keys": [OLD.as_dict(private=False)]}).encode()
    secret = {"keys": [OctKey.generate_key(256).as_dict()]}

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65_536

    return [
        (Response(b"<html>"), "not JSON"),
        (Response(b"\xff\xfe"), "not JSON"),
        (Response(b""), "not JSON"),
        (Response(b"[" * 100_000), "not JSON"),
        (Response(b'{"keys": []}'), "no key in it"),
        (Response(b'{"keys": {"kty": "OKP"}}'), "no key in it"),
        (Response(b"7"), "no key in it"),
        (Response(json.dumps(secret)), "no key in it"),
        (Response(good, 201), "status 201"),
        (Response(good, 404), "status 404"),
        (Response(good, 503), "status 503"),
        (RedirectResponse("/elsewhere"), "status 307"),
        (Response(good + b" " * jwks.SIZE_LIMIT), "over 1 MiB"),
        (StreamingResponse(endless()), "over 1 MiB"),
        (Response(gzip.compress(good), headers={"Content-Encoding": "gzip"}), "not JSON"),
    ]


@pytest.mark.parametrize(("answer", "reason"), junk())
async def test_nothing_starts_without_keys_and_what_was_answered_is_told(
    provider: Provider, clock: WatchedClock, answer: Response, reason: str
) -> None:
    provider.answer = answer
    with pytest.raises(TemporaryError, match=f"RAPPORT_AUTH_JWKS_URL: .*{reason}"):
        async with provider.verifier(clock):
            pass


async def test_nothing_starts_while_nobody_answers(clock: WatchedClock) -> None:
    async with listening(Starlette(), "127.0.0.1", 0) as port:
        pass
    with pytest.raises(TemporaryError, match=r"RAPPORT_AUTH_JWKS_URL: .*cannot be reached"):
        async with Provider(port).verifier(clock):
            pass


async def test_nobody_waits_long_for_a_provider_that_is_slow(
    provider: Provider, clock: WatchedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.02)
    provider.slow = asyncio.Event()
    with pytest.raises(TemporaryError, match="has not answered within"):
        async with provider.verifier(clock):
            pass
    provider.slow.set()


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.id.example/keys",
        "http://127.0.0.1.id.example/keys",
        "http://127.0.0.1@id.example/keys",
        "ftp://id.example/keys",
        "file:///etc/keys.json",
        "https://",
        "id.example/keys",
        "https://id.example:port/",
        "",
    ],
)
async def test_an_address_that_cannot_be_trusted_is_refused_by_its_settings_name(
    address: str,
) -> None:
    with pytest.raises(Invalid, match="RAPPORT_AUTH_JWKS_URL: expected https"):
        async with open_verifier(Settings.load(auth_jwks_url=address)):
            pass


@pytest.mark.parametrize(
    "address",
    ["https://id.example/keys", "http://localhost:8/keys", "http://127.0.0.9/", "http://[::1]:8/"],
)
def test_https_is_trusted_and_so_is_this_machine(address: str) -> None:
    assert str(checked_address(address)) == address


# later


async def test_keys_are_fetched_again_every_ten_minutes(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        await called_with(verifier, token(OLD))
        await fetched_after(provider, clock, minutes=10)
        await fetched_after(provider, clock, minutes=10)
        assert await called_with(verifier, token(OLD)) == "ana"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("public, max-age=300", 300),
        ("MAX-AGE=300,public", 300),
        ("max-age=0", 60),
        ("max-age=99999999", 3_600),
        ("s-maxage=61", 600),
        ("max-age=soon", 600),
        ("no-store", 600),
    ],
)
async def test_the_provider_says_how_often_within_bounds(
    provider: Provider, clock: WatchedClock, asked: str, seconds: int
) -> None:
    provider.headers = {"Cache-Control": asked}
    async with provider.verifier(clock):
        await pass_(clock, seconds=seconds - 1)
        assert provider.asked == 1
        await fetched_after(provider, clock, seconds=1)


async def test_a_key_that_is_taken_back_is_refused_though_its_token_was_remembered(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        assert await called_with(verifier, token(OLD)) == "ana"
        provider.keys = (NEW,)
        assert await called_with(verifier, token(OLD)) == "ana"
        await fetched_after(provider, clock, minutes=10)
        with pytest.raises(UnknownKey):
            verifier.verify(token(OLD))
        with pytest.raises(Unauthorized):
            await called_with(verifier, token(OLD))


async def test_a_token_with_a_new_key_waits_for_it_and_goes_through(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        provider.keys = (OLD, NEW)
        assert await called_with(verifier, token(NEW)) == "ana"
        assert await called_with(verifier, token(OLD)) == "ana"
        assert provider.asked == 2


async def test_all_who_wait_for_a_new_key_wait_for_one_fetch(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        provider.keys, provider.slow = (OLD, NEW), asyncio.Event()
        calls = [asyncio.create_task(called_with(verifier, token(NEW))) for _ in range(20)]
        hasty = asyncio.create_task(called_with(verifier, token(NEW)))
        await asyncio.sleep(0)
        hasty.cancel()
        provider.slow.set()
        assert await asyncio.gather(*calls) == ["ana"] * 20
        assert hasty.cancelled()
        assert provider.asked == 2


async def test_strangers_cannot_have_keys_fetched_as_often_as_they_like(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        for number in range(50):
            stranger = OKPKey.generate_key("Ed25519", {"kid": f"stranger {number}"})
            with pytest.raises(Unauthorized):
                await called_with(verifier, token(stranger))
        assert provider.asked == 2

        provider.keys = (NEW,)
        clock.move(jwks.ASKING_PAUSE)
        assert await called_with(verifier, token(NEW)) == "ana"
        assert provider.asked == 3


async def test_what_is_signed_by_no_known_algorithm_has_nothing_fetched(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock) as verifier:
        with pytest.raises(Unauthorized):
            await called_with(verifier, token(OctKey.generate_key(256, {"kid": "mine"})))
    assert provider.asked == 1


@pytest.mark.parametrize("answer", [Response(b"<html>"), Response(b"", 503)])
async def test_while_the_provider_is_in_trouble_old_keys_go_on_working_for_a_day(
    provider: Provider, clock: WatchedClock, answer: Response
) -> None:
    async with provider.verifier(clock) as verifier:
        provider.answer = answer
        await fetched_after(provider, clock, minutes=10)
        for _ in range(8):
            await fetched_after(provider, clock, seconds=30)
        await fetched_after(provider, clock, hours=23)
        assert await called_with(verifier, token(OLD)) == "ana"
        with pytest.raises(Unauthorized):
            await called_with(verifier, token(NEW))

        await fetched_after(provider, clock, hours=1)
        with pytest.raises(TemporaryError):
            await called_with(verifier, token(OLD))

        provider.answer = None
        await fetched_after(provider, clock, seconds=30)
        assert await called_with(verifier, token(OLD)) == "ana"


async def test_it_can_stop_while_keys_are_being_fetched(
    provider: Provider, clock: WatchedClock
) -> None:
    async with provider.verifier(clock):
        provider.slow = asyncio.Event()
        provider.asking.clear()
        await clock.asleep.wait()
        clock.move(timedelta(minutes=10))
        await provider.asking.wait()
    provider.slow.set()

"""Where webhooks may go: the check against server-side request forgery.

URLs come from users, so they must not make us talk to our own network. The URL itself is checked
first: https, a usual port, no credentials. Then its name is resolved, every address behind it must
be public, and the connection goes to one of exactly these addresses. Check and connection are one
step inside the HTTP client's network layer, so neither a second DNS answer (rebinding) nor two
parsers reading a URL differently can get around it. Operators name exceptions as `host:port`.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

import httpcore2
import httpx2

from rapport.common.errors import PermanentError
from rapport.notification.channels import Reason
from rapport.notification.channels.lookups import Lookups

PORTS: Final = frozenset({443, 8443})
LONGEST_URL: Final = 2048

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


class AddressRefused(PermanentError):
    """Nothing is sent to this address; `cause` says whether it is wrong or not allowed."""

    title = "Address refused"

    def __init__(self, cause: Reason, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def is_public(address: str) -> bool:
    """Tell whether an IP address is a single host on the public internet.

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is as public as what it carries.
    """
    try:
        return _is_public(ip_address(address))
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if carried := _carried(address):
        return _is_public(carried)
    return address.is_global and address in _GLOBAL_UNICAST


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class AddressPolicy:
    """Which addresses may be reached: public ones over https, and what `allow` names.

    An entry of `allow` is `host:port` as in the URL (`[::1]:9000` for IPv6); there, plain http and
    private addresses are allowed too.
    """

    def __init__(self, allow: Iterable[str] = (), resolve: Resolver | None = None) -> None:
        self._allow = frozenset(entry.lower() for entry in allow)
        self._resolve = resolve or Lookups().resolve

    def check(self, url: str) -> httpx2.URL:
        """Return the parsed URL; raises AddressRefused for one that nothing may be sent to."""
        parsed = _parse(url)
        host, port = parsed.raw_host.decode("ascii"), _port(parsed)
        if not self._allows(host, port) and (parsed.scheme != "https" or port not in PORTS):
            raise AddressRefused(Reason.ADDRESS_NOT_ALLOWED, "a URL needs https and a usual port")
        if _is_address(host) and not is_public(host) and not self._allows(host, port):
            raise AddressRefused(Reason.ADDRESS_NOT_ALLOWED, "the host is not on the internet")
        return parsed

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolve `host` once and return its addresses.

        Raises AddressRefused when one of them is not public, OSError when there are none.
        """
        try:
            found = await self._resolve(host, port)
        except UnicodeError as error:
            raise AddressRefused(Reason.BAD_ADDRESS, "the host is not a valid name") from error
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "the host has no address")
        if not self._allows(host, port) and not all(map(is_public, found)):
            raise AddressRefused(Reason.ADDRESS_NOT_ALLOWED, "the host is not on the internet")
        return found

    def _allows(self, host: str, port: int) -> bool:
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") in self._allow


def _parse(url: str) -> httpx2.URL:
    if (
        len(url) > LONGEST_URL
        or "\\" in url
        or any(c.isspace() or not c.isprintable() for c in url)
    ):
        raise AddressRefused(Reason.BAD_ADDRESS, "the URL is too long or has forbidden characters")
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise AddressRefused(Reason.BAD_ADDRESS, "this is not a valid URL") from error
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.userinfo:
        raise AddressRefused(Reason.BAD_ADDRESS, "a URL needs https, a host, and no credentials")
    return parsed


def _port(url: httpx2.URL) -> int:
    return url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """The network as the HTTP client sees it: it connects to checked addresses, nowhere else."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that answers; `timeout` (seconds) is for each."""
        *others, last = await self._policy.addresses(host, port)
        for address in others:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._network.connect_tcp(address, port, timeout)
        return await self._network.connect_tcp(last, port, timeout)

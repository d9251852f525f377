"""Nothing that a user writes as a URL makes us talk to our own network."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.notification.channels import Reason
from rapport.notification.channels.addresses import (
    AddressPolicy,
    AddressRefused,
    CheckedNetwork,
    Resolver,
    is_public,
)

from .servers import receiver

PUBLIC = "93.184.216.34"


def resolving(*addresses: str) -> Resolver:
    """A resolver that knows one answer."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_hosts_on_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "localhost",
        "",
    ],
)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_is_as_public_as_the_ipv4_address_in_it(address: IPv4Address) -> None:
    nat64 = IPv6Address(int(ip_network("64:ff9b::/96").network_address) + int(address))
    assert is_public(str(nat64)) == is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hook?team=pr",
        "https://例子.测试/路径",
        "https://نمونه.آزمایشی/",
        "https://[2606:4700::1111]/",
    ],
)
def test_https_on_a_usual_port_passes(url: str) -> None:
    AddressPolicy().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://example.com:443/",
        "https://example.com:22/",
        "https://example.com:6379/",
        "https://example.com:0/",
        "https://example.com:99999999/",
    ],
)
def test_plain_http_and_unusual_ports_are_not_allowed(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        AddressPolicy().check(url)
    assert refused.value.cause is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:///hook",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com%2f@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: internal",
        "https://example.com/\u202e",
        "https://１２７.0.0.1/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        AddressPolicy().check(url)
    assert refused.value.cause is Reason.BAD_ADDRESS


@given(st.text() | st.text().map("https://{}".format))
def test_any_text_is_either_refused_or_can_be_written_into_a_request(text: str) -> None:
    try:
        url = AddressPolicy().check(text)
    except AddressRefused:
        return
    assert url.netloc.isascii()
    assert url.raw_path.isascii()


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "127.1", "0", "localhost", "::1"],
)
async def test_other_spellings_of_the_loopback_are_seen_through(host: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        await AddressPolicy().addresses(host, 443)
    assert refused.value.cause is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("found", [("10.0.0.1",), (PUBLIC, "10.0.0.1"), ("::1", PUBLIC)])
async def test_one_private_address_behind_a_name_is_enough_to_refuse(found: Sequence[str]) -> None:
    with pytest.raises(AddressRefused):
        await AddressPolicy(resolve=resolving(*found)).addresses("rebind.test", 443)


async def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(AddressRefused) as refused:
        await AddressPolicy().addresses("a" * 70 + ".test", 443)
    assert refused.value.cause is Reason.BAD_ADDRESS


async def test_a_name_without_addresses_is_trouble_not_a_refusal() -> None:
    with pytest.raises(OSError, match="no address"):
        await AddressPolicy(resolve=resolving()).addresses("nowhere.test", 443)


async def test_an_operator_can_allow_a_host_and_port_and_nothing_beside_it() -> None:
    policy = AddressPolicy(["Receiver.test:9000", "[::1]:9000"], resolving("10.0.0.1"))
    policy.check("http://receiver.test:9000/hook")
    policy.check("https://RECEIVER.test:9000/hook")
    policy.check("http://[::1]:9000/")
    assert await policy.addresses("receiver.test", 9000) == ("10.0.0.1",)
    for url in (
        "http://receiver.test/",
        "http://receiver.test:9001/",
        "http://a.receiver.test:9000/",
    ):
        with pytest.raises(AddressRefused):
            policy.check(url)
    with pytest.raises(AddressRefused):
        await policy.addresses("receiver.test", 443)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with receiver() as told:
        policy = AddressPolicy([f"name.test:{told.port}"], resolve)
        stream = await CheckedNetwork(policy).connect_tcp("name.test", told.port, timeout=5)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", told.port)
        await stream.aclose()
    assert asked == ["name.test"]


async def test_a_name_that_turns_private_after_it_was_accepted_is_not_connected_to() -> None:
    async with receiver() as told:
        policy = AddressPolicy(resolve=resolving("127.0.0.1"))
        with pytest.raises(AddressRefused):
            await CheckedNetwork(policy).connect_tcp("rebind.test", told.port, timeout=5)
        assert told.connections == 0


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with receiver() as told:
        policy = AddressPolicy([f"two.test:{told.port}"], resolving("127.0.0.2", "127.0.0.1"))
        stream = await CheckedNetwork(policy).connect_tcp("two.test", told.port, timeout=5)
        await stream.aclose()


async def test_when_no_address_answers_the_last_failure_is_told() -> None:
    async with receiver() as told:
        policy = AddressPolicy([f"two.test:{told.port}"], resolving("127.0.0.2", "127.0.0.3"))
        with pytest.raises(httpcore2.ConnectError):
            await CheckedNetwork(policy).connect_tcp("two.test", told.port, timeout=5)

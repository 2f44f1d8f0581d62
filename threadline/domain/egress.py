"""Which addresses the service may be sent to by strangers: none of its own machine or network, save those listed.

Pure rules. Who connects must ask about the very addresses it then connects to; `threadline.services.egress` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from threadline.domain.errors import Invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SCHEMES = frozenset({"http", "https"})
LOCALHOST = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
NAT64 = IPv6Network("64:ff9b::/96")
COMPATIBLE = IPv6Network("::/96")
NOT_PUBLIC: tuple[Network, ...] = (
    IPv4Network("168.63.129.16/32"),  # the metadata service of a cloud, on a public address
    IPv4Network("192.0.0.0/24"),  # of another cloud
    IPv4Network("192.88.99.0/24"),
    IPv6Network("fec0::/10"),
)
"""What `ipaddress` takes for global and is not, beyond the addresses that hold another one."""


class Blocked(Invalid):
    """An address nobody may be sent to; the message says why, and never what a name stands for."""

    kind = "blocked"


class Unresolved(Blocked):
    """A name that stands for nothing, or not now."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("DNS resolution failed")


@dataclass(frozen=True, slots=True)
class Egress:
    """`names` and `networks` are the hosts that may be asked although they are not public."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, hosts: Iterable[str]) -> Egress:
        """From names, addresses and networks such as `10.0.0.0/8`. Raises ValueError."""
        names, networks = set[str](), list[Network]()
        for host in hosts:
            try:
                networks.append(ip_network(host.strip("[]")))
            except ValueError:
                if not host or not host.isascii() or any(part in host for part in "/:@ *"):
                    raise ValueError(f"{host!r} is no host name, address or network") from None
                names.add(_name(host))
        return cls(frozenset(names), tuple(networks))

    def check_url(self, *, scheme: str, host: str, credentials: bool) -> None:
        """What can be said of an address before its name is looked up. Raises Blocked."""
        if not scheme:
            raise Blocked("not an absolute URL")
        if scheme not in SCHEMES:
            raise Blocked(f"scheme '{scheme[:20]}' not allowed")
        if not host:
            raise Blocked("no host")
        if credentials:
            raise Blocked("credentials in the URL")
        name = _name(host)
        if (name in LOCALHOST or name.endswith(".localhost")) and name not in self.names:
            raise Blocked("localhost address")

    def check_addresses(self, host: str, addresses: Iterable[str]) -> None:
        """That all a host's addresses may be asked: one that may not makes the others suspect. Raises Blocked."""
        if _name(host) in self.names:
            return
        for text in addresses:
            address = ip_address(text.partition("%")[0])
            forms = list(_forms(address))
            if any(form in network for form in forms for network in self.networks):
                continue
            if any(form.is_loopback for form in forms):
                raise Blocked("loopback IP range")
            if not all(_public(form) for form in forms):
                raise Blocked("blocked IP range")


def _forms(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address it is another spelling of or a way to."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or address in COMPATIBLE:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    yield from (form for form in inner if form is not None)


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True  # another spelling: what it spells is looked at by itself
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    if special and not (isinstance(address, IPv6Address) and address in NAT64):
        return False
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


def _name(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()

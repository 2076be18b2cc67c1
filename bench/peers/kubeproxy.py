"""Layout replicas of kube-proxy: its rules as its documentation shows them, written by the programs that it runs.

Not kube-proxy: what its own program would take to work the text out is not in these figures, only what iptables-restore
or nft and the kernel take. Both write only the chains that have changed, as it does since 1.28 (iptables) and 1.33
(nftables); with iptables the chain of all services is written each time, as there.
Sources: kubernetes.io "Virtual IPs and Service Proxies", KEP-3453 (smaller iptables-restore input) and KEP-3866
(nftables), whose chain names are given as in kubernetes.io's "NFTables mode for kube-proxy".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence

from bench.rules.scale import RANGES, Services
from bench.rules.subject import Candidate, Subject
from nodeagent.proxy.services import Endpoint, ServicePort

_MARK = "0x4000"
_NFT_BASE = f"""
add table ip kube-proxy {{ comment "rules for kube-proxy"; }}
add map ip kube-proxy service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map ip kube-proxy service-nodeports {{ type inet_proto . inet_service : verdict; }}
add map ip kube-proxy no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add chain ip kube-proxy nat-prerouting {{ type nat hook prerouting priority -100; }}
add chain ip kube-proxy nat-output {{ type nat hook output priority -100; }}
add chain ip kube-proxy nat-postrouting {{ type nat hook postrouting priority 100; }}
add chain ip kube-proxy filter-forward {{ type filter hook forward priority -110; }}
add chain ip kube-proxy filter-output {{ type filter hook output priority -110; }}
add chain ip kube-proxy services
add chain ip kube-proxy service-endpoints-check
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy masquerading
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services fib daddr type local ip daddr != 127.0.0.1 meta l4proto . th dport \
vmap @service-nodeports
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip kube-proxy mark-for-masquerade mark set mark or {_MARK}
add rule ip kube-proxy masquerading mark and {_MARK} == 0 return
add rule ip kube-proxy masquerading mark set mark xor {_MARK}
add rule ip kube-proxy masquerading masquerade fully-random
"""
_IPTABLES_JUMPS = (
    '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
)
_IPTABLES_SHARED = (
    f"-A KUBE-POSTROUTING -m mark ! --mark {_MARK}/{_MARK} -j RETURN",
    f"-A KUBE-POSTROUTING -j MARK --xor-mark {_MARK}",
    '-A KUBE-POSTROUTING -m comment --comment "traffic requiring SNAT" -j MASQUERADE --random-fully',
    f"-A KUBE-MARK-MASQ -j MARK --or-mark {_MARK}",
)


class Replica:
    """Text for a program: of all at first, then of what has changed."""

    def __init__(self, argv: Sequence[str], make: Callable[[Services, Services], Iterator[str]]) -> None:
        self._argv = argv
        self._make = make
        self._prepared: Services = {}
        self.text = b""
        """What is written next."""

    async def prepare(self, services: Services) -> None:
        self.text = "\n".join([*self._make(self._prepared, services), ""]).encode()
        self._prepared = dict(services)

    async def write(self) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._argv, stdin=pipe, stderr=pipe)
        _, said = await process.communicate(self.text)
        if process.returncode != 0:
            raise RuntimeError(f"{self._argv[0]}: {said.decode(errors='replace')[:500]}")

    async def close(self) -> None:
        """Nothing is held."""


def replicas() -> tuple[Candidate, ...]:
    """The nftables mode, and the iptables mode on both flavours of iptables."""
    flavours = [
        _candidate(f"iptables ({flavour})", [f"iptables-{flavour}-restore", "--noflush", "-w", "5"], _iptables)
        for flavour in ("nft", "legacy")
    ]
    return (_candidate("nftables", ["nft", "-f", "-"], _nftables), *flavours)


def _candidate(mode: str, argv: Sequence[str], text: Callable[[Services, Services], Iterator[str]]) -> Candidate:
    async def open() -> Subject:
        return Replica(argv, text)

    async def missing() -> str:
        return "" if shutil.which(argv[0]) else f"{argv[0]} is not installed"

    return Candidate(f"replica of {mode}", open, missing)


# ── nftables: a map of all services, a chain for each service, a chain for each endpoint ─────────────────────────────


def _nftables(old: Services, new: Services) -> Iterator[str]:
    if not old:
        yield _NFT_BASE
    for before, after in _changed(old, new):
        yield from _nft_service(before, after)


def _nft_service(before: ServicePort | None, port: ServicePort) -> Iterator[str]:
    had = before.endpoints if before else ()
    chain = f"service-{_nft_name(port)}"
    come = [endpoint for endpoint in port.endpoints if endpoint not in had]
    yield f"add chain ip kube-proxy {chain}"
    yield from (f"add chain ip kube-proxy {_nft_endpoint(port, endpoint)}" for endpoint in come)
    if before:
        yield f"flush chain ip kube-proxy {chain}"
    yield (f"add rule ip kube-proxy {chain} ip daddr {port.cluster_ip} {port.protocol} dport {port.port} "
           f"ip saddr != {RANGES.cluster_cidr} jump mark-for-masquerade")  # fmt: skip
    picks = ", ".join(f"{slot} : goto {_nft_endpoint(port, end)}" for slot, end in enumerate(port.endpoints))
    yield f"add rule ip kube-proxy {chain} numgen random mod {len(port.endpoints)} vmap {{ {picks} }}"
    for endpoint in come:
        own = _nft_endpoint(port, endpoint)
        yield f"add rule ip kube-proxy {own} ip saddr {endpoint.address} jump mark-for-masquerade"
        yield f"add rule ip kube-proxy {own} meta l4proto {port.protocol} dnat to {endpoint}"
    if not before:
        place = f"{port.cluster_ip} . {port.protocol} . {port.port}"
        yield f"add element ip kube-proxy service-ips {{ {place} : goto {chain} }}"
    for endpoint in had:
        if endpoint not in port.endpoints:
            yield f"flush chain ip kube-proxy {_nft_endpoint(port, endpoint)}"
            yield f"delete chain ip kube-proxy {_nft_endpoint(port, endpoint)}"


def _nft_name(port: ServicePort, endpoint: Endpoint | None = None) -> str:
    name = f"{port.service}/{port.protocol}/{port.name}{f'__{endpoint.address}/{endpoint.port}' if endpoint else ''}"
    return f"{_hash(name)[:8]}-{name}"


def _nft_endpoint(port: ServicePort, endpoint: Endpoint) -> str:
    return f"endpoint-{_nft_name(port, endpoint)}"


# ── iptables: a rule for each service in one chain, a chain for each service, a chain for each endpoint ──────────────


def _iptables(old: Services, new: Services) -> Iterator[str]:
    changed = list(_changed(old, new))
    come: list[str] = []
    gone: list[str] = []
    rules: list[str] = []
    for before, port in changed:
        had = before.endpoints if before else ()
        come += [_service_chain(port), *(_endpoint_chain(port, end) for end in port.endpoints if end not in had)]
        gone += [_endpoint_chain(port, end) for end in had if end not in port.endpoints]
        rules += _iptables_service(port, had)
    shared = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ")
    yield "*nat"
    yield from (f":{chain} - [0:0]" for chain in (*shared, *come, *gone))
    yield from () if old else _IPTABLES_JUMPS
    yield from _IPTABLES_SHARED
    yield from (_portal(port) for ports in new.values() for port in ports)
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield from rules
    yield from (f"-X {chain}" for chain in gone)
    yield "COMMIT"


def _portal(port: ServicePort) -> str:
    return f"-A KUBE-SERVICES {_asked(port)} -j {_service_chain(port)}"


def _asked(port: ServicePort) -> str:
    comment = f'-m comment --comment "{port.title} cluster IP"'
    return f"{comment} -m {port.protocol} -p {port.protocol} -d {port.cluster_ip} --dport {port.port}"


def _iptables_service(port: ServicePort, had: Sequence[Endpoint]) -> Iterator[str]:
    chain = _service_chain(port)
    yield f"-A {chain} {_asked(port)} ! -s {RANGES.cluster_cidr} -j KUBE-MARK-MASQ"
    for index, endpoint in enumerate(port.endpoints):
        left = len(port.endpoints) - index
        chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        comment = f'-m comment --comment "{port.title} -> {endpoint}"'
        yield f"-A {chain} {comment}{chance} -j {_endpoint_chain(port, endpoint)}"
    for endpoint in port.endpoints:
        if endpoint not in had:
            own, comment = _endpoint_chain(port, endpoint), f'-m comment --comment "{port.title}"'
            yield f"-A {own} {comment} -s {endpoint.address} -j KUBE-MARK-MASQ"
            yield f"-A {own} {comment} -m {port.protocol} -p {port.protocol} -j DNAT --to-destination {endpoint}"


def _service_chain(port: ServicePort) -> str:
    return f"KUBE-SVC-{_hash(f'{port.title}{port.protocol}')[:16]}"


def _endpoint_chain(port: ServicePort, endpoint: Endpoint) -> str:
    return f"KUBE-SEP-{_hash(f'{port.title}{port.protocol}{endpoint}')[:16]}"


def _changed(old: Services, new: Services) -> Iterator[tuple[ServicePort | None, ServicePort]]:
    """The ports of services that have changed, each with what it was; the bench removes no service."""
    for key, ports in new.items():
        before = old.get(key)
        if before is not ports:
            yield from zip(before or (None,) * len(ports), ports, strict=True)


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()

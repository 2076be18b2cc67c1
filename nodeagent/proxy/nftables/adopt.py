"""Which elements in the kernel belong to which service: for one that nothing can be made of, what it has stays. Pure.

A service's element in one of FRONTENDS bears its name; the others have the same place as key. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nodeagent.proxy.elements import Container, Key, Value
from nodeagent.proxy.nftables.parts import Part
from nodeagent.proxy.nftables.table import FRONTENDS, LOCAL_SLOTS, Rules, endpoint_set, is_pick, pick_chain

_BY_NODE, _BACKENDS = "node-", "backends-"


def parts(
    services: Collection[str], elements: Mapping[Key, Value], containers: Mapping[str, Container]
) -> dict[str, Part]:
    """What each of these services has."""
    places: dict[tuple[bool, str], str] = {}
    for (container, place), (_, comment) in elements.items():
        if container in FRONTENDS and (service := comment.partition(":")[0]) in services:
            places[container.startswith(_BY_NODE), place] = service
    found: dict[str, dict[Key, Value]] = {service: {} for service in services}
    for (container, key), value in elements.items():
        place = _place(container, key)
        if owner := places.get((container.startswith(_BY_NODE), place)):
            found[owner][container, key] = value
    return {service: _part(own, elements, containers) for service, own in found.items() if own}


def _part(own: dict[Key, Value], elements: Mapping[Key, Value], containers: Mapping[str, Container]) -> Part:
    targets = [value.removeprefix("goto ") for value, _ in own.values() if value.startswith("goto ")]
    own_chains = [name for name in targets if "stay-" in name or name.startswith("record-")]
    chains: dict[str, Rules | None] = dict.fromkeys(own_chains)
    groups = {name.partition("stay-")[2] for name in chains if "stay-" in name}
    kept = {
        name: containers[name] for group in groups for name in (f"aff-{group}", f"eps-{group}") if name in containers
    }
    own |= {key: value for key, value in elements.items() if key[0] in kept}
    addresses = {value.partition(" ")[0] for (container, _), (value, _) in own.items() if _BACKENDS in container}
    hairpins = frozenset(address for address in addresses if ("hairpins", f"{address} . {address}") in elements)
    return Part(own, chains, kept, picks=frozenset(filter(is_pick, targets)) | _picks(own), hairpins=hairpins)


def _place(container: str, key: str) -> str:
    """Where an element's port is asked for, as FRONTENDS have it."""
    if _BACKENDS not in container:
        return key
    *address, port, _ = key.split(" . ")
    return " . ".join([*address, container.rpartition("-")[2], port])


def _picks(own: Mapping[Key, Value]) -> frozenset[str]:
    """The chains that take one of the slots that there are: a chain of affinity may lead to them."""
    slots: dict[tuple[bool, str, bool], int] = {}
    for container, key in own:
        if _BACKENDS in container:
            slot = int(key.rpartition(" . ")[2])
            group = container.startswith(_BY_NODE), _place(container, key), slot >= LOCAL_SLOTS
            slots[group] = slots.get(group, 0) + 1
    return frozenset(pick_chain(count, node=node, local=local) for (node, _, local), count in slots.items())


def containers_named(names: Collection[str]) -> dict[str, Container]:
    """Containers of affinity by their names; how long clients are remembered is not known, nor needed."""
    made = {}
    for name in names:
        if name.startswith("eps-"):
            made[name] = endpoint_set(name)
        elif name.startswith("aff-"):
            made[name] = Container(name, ("ip",), "target", "")
    return made

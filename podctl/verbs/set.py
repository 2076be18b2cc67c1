"""podctl set: changes images, variables or resources of a workload's containers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from podctl.client import Client, Query, connect
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser, pairs_of
from podctl.resources import object_word, targets
from podplane.kinds import Kind

USAGE = "(image | env | resources) (TYPE/NAME... | TYPE --all | TYPE -l SELECTOR) CHANGES... [flags]"
EXAMPLES = """
  podctl set image deployment/web web=nginx:1.27
  podctl set env deployment/web COLOUR=blue DEBUG-
  podctl set env deployment/web --list
  podctl set resources deployment/web -c=web --limits=cpu=500m,memory=256Mi
"""
_DONE = {"image": "image", "env": "env", "resources": "resource requirements"}


def configure(parser: Parser) -> None:
    parser.add_argument("part", choices=tuple(_DONE), help="what is changed")
    parser.add_argument("what", metavar="TYPE/NAME", nargs="+", help="workloads, then NAME=IMAGE, KEY=VALUE or KEY-")
    parser.add_argument("-c", "--containers", metavar="NAME", default="*", help="env, resources: of this container (*)")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every one with these labels")
    parser.switch("--all", help="every one of this type in the namespace")
    parser.switch("--list", help="env: print the variables and change nothing")
    parser.add_argument("--limits", metavar="LIST", help="resources: cpu=500m,memory=256Mi")
    parser.add_argument("--requests", metavar="LIST", help="resources: cpu=100m,memory=64Mi")


def run(args: Namespace) -> int:
    names, changes = _split(args)
    edit = _editor(args, changes)
    with connect(args) as client:
        for kind, name in _chosen(args, client, names):
            if args.part == "env" and args.list:
                _list(client.get(kind, client.namespace, name), kind)
                continue
            _, changed = client.change(kind, client.namespace, name, edit)
            if changed:
                print(f"{object_word(kind, name)} {_DONE[args.part]} updated", flush=True)
    return 0


def _split(args: Namespace) -> tuple[list[str], list[str]]:
    changes = [word for word in args.what if "=" in word or (args.part == "env" and word.endswith("-"))]
    names = [word for word in args.what if word not in changes]
    if args.part == "resources":
        if changes or not (args.limits or args.requests):
            raise UsageFailure("you must specify an update to requests or limits", "set")
    elif not changes and not args.list:
        what = "image" if args.part == "image" else "environment variable"
        raise UsageFailure(f"at least one {what} update is required", "set")
    return names, changes


def _chosen(args: Namespace, client: Client, words: list[str]) -> Iterator[tuple[Kind, str]]:
    for target in targets(words):
        names = target.names
        if not names:
            if not (args.all or args.selector):
                raise Failure("error: resource(s) were provided, but no name was specified")
            page = client.list(target.kind, Query(client.namespace, args.selector or ""))
            names = tuple(obj.metadata.name for obj in page.items)
        yield from ((target.kind, name) for name in names)


def _spec(obj: Any) -> Any:
    """The pod spec of a workload, or of a pod."""
    spec: Any = getattr(obj, "spec", None)
    spec = spec.template.spec if hasattr(spec, "template") else spec
    if not hasattr(spec, "containers"):
        raise Failure(f"error: {obj.kind}/{obj.metadata.name} has no containers")
    return spec


def _editor(args: Namespace, changes: list[str]) -> Callable[[Any], bool]:
    """What changes an object in place and says whether it did."""
    if args.part == "image":
        images = pairs_of("image", changes)
        return _changing(lambda spec: _set_images(spec, images))
    if args.part == "env":
        setting = pairs_of("variable", [word for word in changes if "=" in word])
        removing = {word[:-1] for word in changes if "=" not in word}
        return _changing(lambda spec: _set_env(spec, args.containers, setting, removing))
    given = {
        name: pairs_of(f"--{name}", text.split(","))
        for name, text in (("limits", args.limits), ("requests", args.requests))
        if text
    }
    return _changing(lambda spec: _set_resources(spec, args.containers, given))


def _changing(edit: Callable[[Any], None]) -> Callable[[Any], bool]:
    def changes(obj: Any) -> bool:
        before = obj.SerializeToString(deterministic=True)
        edit(_spec(obj))
        return bool(before != obj.SerializeToString(deterministic=True))

    return changes


def _containers(spec: Any, name: str) -> list[Any]:
    every = [*spec.initContainers, *spec.containers]
    found = list(spec.containers) if name == "*" else [one for one in every if one.name == name]
    if not found:
        raise Failure(f'error: unable to find container named "{name}"')
    return found


def _set_images(spec: Any, images: dict[str, str]) -> None:
    for name, image in images.items():
        for container in _containers(spec, name):
            container.image = image


def _set_env(spec: Any, name: str, setting: dict[str, str], removing: set[str]) -> None:
    for container in _containers(spec, name):
        for variable in [one for one in container.env if one.name in removing]:
            container.env.remove(variable)
        for key, value in setting.items():
            known = next((one for one in container.env if one.name == key), None)
            variable = container.env.add(name=key) if known is None else known
            variable.ClearField("valueFrom")
            variable.value = value


def _set_resources(spec: Any, name: str, given: dict[str, dict[str, str]]) -> None:
    for container in _containers(spec, name):
        for field, quantities in given.items():
            for resource, quantity in quantities.items():
                if quantity in ("0", "-"):
                    getattr(container.resources, field).pop(resource, None)
                else:
                    getattr(container.resources, field)[resource] = quantity


def _list(obj: Any, kind: Kind) -> None:
    for container in _containers(_spec(obj), "*"):
        print(f"# {object_word(kind, obj.metadata.name)}, container {container.name}")
        for one in container.env:
            print(f"# {one.name} comes from elsewhere" if one.HasField("valueFrom") else f"{one.name}={one.value}")

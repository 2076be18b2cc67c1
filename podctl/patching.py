"""The three kinds of patch over plain data: JSON merge (RFC 7386), JSON (RFC 6902) and Kubernetes' strategic merge.

Pure; the arguments are not changed. Strategic merge reads the list keys from the descriptor and knows the directives
`$patch: replace|delete|merge`, `$retainKeys` and `$deleteFromPrimitiveList/FIELD`. Fails with PatchError.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor

from podplane.manifest.schema import fields

Tree = dict[str, Any]
_KEY_DEFAULTS = {"protocol": "TCP"}
_REMOVE_FROM = "$deleteFromPrimitiveList/"


class PatchError(ValueError):
    """The patch is malformed or does not fit the object."""


def merge(tree: Any, patch: Any) -> Any:
    """A JSON merge patch: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(tree) if isinstance(tree, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(tree: Tree, patch: Tree, descriptor: Descriptor) -> Tree:
    """A strategic merge patch of an object of that message."""
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object")
    return _object(tree, patch, descriptor)


def json_patch(tree: Any, operations: Any) -> Any:
    """A JSON patch: its operations in order, all or none."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    result = copy.deepcopy(tree)
    for operation in operations:
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            raise PatchError(f"{operation} is no operation: op is one of {', '.join(_OPERATIONS)}")
        needed = {"path", "from"} if operation["op"] in ("move", "copy") else {"path"}
        needed |= {"value"} if operation["op"] in ("add", "replace", "test") else set()
        if missing := sorted(needed - set(operation)):
            raise PatchError(f"the operation {operation['op']} needs {missing[0]}")
        result = _OPERATIONS[operation["op"]](result, operation)
    return result


def _object(tree: Any, patch: Tree, descriptor: Descriptor | None) -> Tree:
    directive = patch.get("$patch", "merge")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive != "merge":
        raise PatchError(f"$patch: {directive} does not fit here; it is replace or merge, or delete in a list")
    known = fields(descriptor) if descriptor is not None else {}
    result: Tree = dict(tree) if isinstance(tree, dict) else {}
    for key, value in patch.items():
        if key.startswith(_REMOVE_FROM):
            name = key.removeprefix(_REMOVE_FROM)
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif key.startswith("$"):
            if key not in ("$patch", "$retainKeys"):
                raise PatchError(f"the directive {key} is not supported")
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _value(result.get(key), value, known.get(key))
    if "$retainKeys" in patch:
        return {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    return result


def _value(tree: Any, value: Any, field: Any) -> Any:
    if isinstance(value, dict):
        if value.get("$patch") == "delete":
            return {}
        return _object(tree, value, field.message if field is not None and not field.is_map else None)
    if isinstance(value, list) and field is not None:
        before = tree if isinstance(tree, list) else []
        if field.list_keys:
            return _keyed(before, value, field.list_keys, field.message)
        if field.is_set:
            return [*before, *(item for item in value if item not in before)]
    return copy.deepcopy(value)


def _keyed(before: Sequence[Any], items: Sequence[Any], keys: Sequence[str], message: Descriptor) -> list[Any]:
    """The list with the patch's items merged into those of the same keys, new ones at the end."""
    whole = any(item == {"$patch": "replace"} for item in items if isinstance(item, dict))
    result = [] if whole else list(before)
    for item in items:
        if not isinstance(item, dict):
            raise PatchError(f"{item!r}: an object with {', '.join(keys)} is needed")
        if item == {"$patch": "replace"}:
            continue
        if not any(key in item for key in keys):
            raise PatchError(f"an item of the list has none of its keys {', '.join(keys)}")
        at = next((index for index, one in enumerate(result) if _same(one, item, keys)), None)
        if item.get("$patch") == "delete":
            result = [one for one in result if not _same(one, item, keys)]
        elif at is None:
            result.append(_object({}, item, message))
        else:
            result[at] = _object(result[at], item, message)
    return result


def _same(one: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(one.get(key, _KEY_DEFAULTS.get(key)) == other.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f'the path "{path}" does not start with /')
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _index(items: list[Any], part: str, *, end: bool) -> int:
    if end and part == "-":
        return len(items)
    last = len(items) if end else len(items) - 1
    if not part.isascii() or not part.isdigit() or int(part) > last:
        raise PatchError(f'"{part}" is no place in a list of {len(items)}')
    return int(part)


def _at(tree: Any, path: str) -> Any:
    for part in _pointer(path):
        if isinstance(tree, list):
            tree = tree[_index(tree, part, end=False)]
        elif isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            raise PatchError(f'there is nothing at "{path}"')
    return tree


def _add(tree: Any, operation: Tree) -> Any:
    parts = _pointer(operation["path"])
    if not parts:
        return copy.deepcopy(operation["value"])
    parent = _at(tree, operation["path"].rpartition("/")[0])
    if isinstance(parent, list):
        parent.insert(_index(parent, parts[-1], end=True), copy.deepcopy(operation["value"]))
    elif isinstance(parent, dict):
        parent[parts[-1]] = copy.deepcopy(operation["value"])
    else:
        raise PatchError(f'nothing can be added at "{operation["path"]}"')
    return tree


def _remove(tree: Any, operation: Tree) -> Any:
    _at(tree, operation["path"])
    parts = _pointer(operation["path"])
    if not parts:
        raise PatchError("the whole object cannot be removed")
    parent = _at(tree, operation["path"].rpartition("/")[0])
    del parent[_index(parent, parts[-1], end=False) if isinstance(parent, list) else parts[-1]]
    return tree


def _replace(tree: Any, operation: Tree) -> Any:
    if operation["path"]:
        _remove(tree, operation)
    return _add(tree, operation)


def _move(tree: Any, operation: Tree) -> Any:
    value = _at(tree, operation["from"])
    return _add(_remove(tree, {"path": operation["from"]}), {"path": operation["path"], "value": value})


def _copy(tree: Any, operation: Tree) -> Any:
    return _add(tree, {"path": operation["path"], "value": _at(tree, operation["from"])})


def _test(tree: Any, operation: Tree) -> Any:
    if _at(tree, operation["path"]) != operation["value"]:
        raise PatchError(f'the test of "{operation["path"]}" failed')
    return tree


_OPERATIONS: dict[str, Callable[[Any, Tree], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}

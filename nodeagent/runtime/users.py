"""Who a container runs as: the request's numbers, or the image's user looked up in the container's own /etc/passwd.

Pure but for `read_accounts`. Fails with RuntimeFailure: CreateContainerConfigError where runAsNonRoot does not hold,
CreateContainerError where the image names a user that its /etc/passwd does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime.beneath import directory, read_in_root
from nodeagent.runtime.spec import User
from nodeagent.types import RuntimeFailure, Security

_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of a root filesystem's /etc/passwd and /etc/group."""

    passwd: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


def read_accounts(root: Path) -> Accounts:
    """Read both files inside a root filesystem, without following a link out of it."""
    with directory(root) as inside:
        return Accounts(read_in_root(inside, "etc/passwd", _LIMIT), read_in_root(inside, "etc/group", _LIMIT))


def _accounts(passwd: str) -> Iterator[_Account]:
    for line in passwd.splitlines():
        parts = line.split(":")
        if len(parts) >= 6 and parts[2].isdigit() and parts[3].isdigit():
            yield _Account(parts[0], int(parts[2]), int(parts[3]), parts[5])


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for line in group.splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and parts[2].isdigit():
            yield parts[0], int(parts[2]), [name for name in parts[3].split(",") if name]


def _account(accounts: Accounts, wanted: str) -> _Account:
    for account in _accounts(accounts.passwd):
        if str(account.uid) == wanted or account.name == wanted:
            return account
    if wanted.isdigit():
        return _Account("", int(wanted), 0, "/")
    raise RuntimeFailure("CreateContainerError", f"unable to find user {wanted}: no matching entries in passwd file")


def _group_id(accounts: Accounts, wanted: str) -> int:
    if wanted.isdigit():
        return int(wanted)
    for name, gid, _members in _groups(accounts.group):
        if name == wanted:
            return gid
    raise RuntimeFailure("CreateContainerError", f"unable to find group {wanted}: no matching entries in group file")


def _must_not_be_root(asked: Security, image_user: str, uid: int) -> None:
    if not asked.run_as_non_root:
        return
    name = image_user.partition(":")[0]
    if asked.uid is None and name and not name.isdigit():
        problem = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
    elif uid == 0 and asked.uid is None:
        problem = "container has runAsNonRoot and image will run as root"
    elif uid == 0:
        problem = "container's runAsUser breaks non-root policy"
    else:
        return
    raise RuntimeFailure("CreateContainerConfigError", problem)


def resolve(asked: Security, image_user: str, accounts: Accounts) -> User:
    """The first process' user. runAsUser replaces the image's user and its group; runAsGroup only the group."""
    image_name, _, image_group = image_user.partition(":")
    if asked.uid is not None:
        account, group = _account(accounts, str(asked.uid)), ""
    else:
        account, group = _account(accounts, image_name or "0"), image_group
    _must_not_be_root(asked, image_user, account.uid)
    gid = asked.gid if asked.gid is not None else _group_id(accounts, group) if group else account.gid
    member = [number for _name, number, members in _groups(accounts.group) if account.name in members]
    from_image = member if account.name and not asked.only_these_groups else ()
    groups = dict.fromkeys([*from_image, *asked.supplemental_groups])
    return User(account.uid, gid, tuple(groups), account.home or "/")

"""`init` and `token`: what is done beside a running server.

`init` is idempotent: each step keeps what exists and says so. Secrets are printed only where that is the command's
purpose (`token`), on stdout. Fails with ValueError or OSError that says what to do.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path

from controlplane.pki import Authority
from controlplane.tokens import BOOTSTRAP, Tokens
from podplane import context

ADMIN = "admin"
PEOPLE_PORT = 7443


def run_init(options: argparse.Namespace) -> int:
    """Make everything that `serve` needs."""
    state: Path = options.state_dir
    existed = is_initialised(state)  # before anything is made below
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    authority = Authority.create(state / "pki")
    authority.server_identity(server_names(tuple(options.advertise)))
    # A store that is there may be in use by a running server, and needs nothing.
    cluster = "kept the cluster" if existed else f"made the cluster {asyncio.run(_make_store(state))}"
    print(f"{cluster} in {state}")
    print(f"certificate authority: sha256 {authority.hash}")
    server = options.server or f"{(options.advertise or ['127.0.0.1'])[0]}:{PEOPLE_PORT}"
    print(_admin_context(options.context_file, options.context, server, state, authority))
    return 0


def is_initialised(state: Path) -> bool:
    """True where init has been here before."""
    return (state / "pki" / "ca.crt").exists() and (state / "store.sqlite").exists()


def server_names(advertise: tuple[str, ...]) -> tuple[str, ...]:
    """The names that the server's certificate must hold, in order, each once."""
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", socket.gethostname(), *advertise)))


async def _make_store(state: Path) -> str:
    from controlplane.server import open_objects
    from podplane.kinds import NAMESPACE

    log, objects = await open_objects(state)
    try:
        for name in ("default", "kube-system"):
            if objects.cache.get(NAMESPACE, "", name) is None:
                await objects.create(NAMESPACE.message(metadata={"name": name}))
        return log.cluster_id
    finally:
        await log.close()


def _admin_context(path: Path, name: str, server: str, state: Path, authority: Authority) -> str:
    """Write the admin's context unless a working one is there; the line that says which."""
    file = context.read(path) if path.exists() else context.ContextFile(path)
    tokens, pem = Tokens(state / "tokens"), authority.certificate.decode()
    known = file.contexts.get(name)
    if known and (known.server, known.certificate_authority_data) == (server, pem) and tokens.check(known.token):
        return f"kept the context {name!r} in {path}"
    token = tokens.create(ADMIN, "admin", None)
    entry = context.Context(name, server=server, certificate_authority_data=pem, token=token)
    context.write(context.with_context(file, entry))
    return f"wrote the admin's context {name!r} to {path}"


def run_token(options: argparse.Namespace) -> int:
    """Print a bearer token, or with --bootstrap a token that a node joins with."""
    state: Path = options.state_dir
    if not is_initialised(state):
        raise ValueError(uninitialised(state))
    if options.bootstrap == bool(options.user or options.role):
        raise ValueError("give either --bootstrap, or both --user and --role")
    tokens = Tokens(state / "tokens")
    tokens.remove_expired()
    if options.bootstrap:
        token = f"{Authority(state / 'pki').hash}.{tokens.create('system:bootstrap', BOOTSTRAP, options.ttl)}"
    else:
        token = tokens.create(*_person(options), options.ttl)
    print(token)
    return 0


def _person(options: argparse.Namespace) -> tuple[str, str]:
    if not options.user or not options.role:
        raise ValueError("give both --user and --role, or --bootstrap")
    if options.user.startswith("system:"):
        raise ValueError(f"cannot make a token for {options.user!r}: names that begin with system: are reserved")
    return options.user, options.role


def uninitialised(state: Path) -> str:
    """What to tell who runs a command before init."""
    return f"{state} holds no cluster: run `podplane-controlplane init --state-dir {state}` first"

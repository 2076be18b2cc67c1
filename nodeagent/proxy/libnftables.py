"""Giving a script to nftables: by libnftables in this process, or by the program `nft` where the library is missing.

Owns the deadline and the words of a failure. Never looks into a script. Fails with RulesRefused (nothing of it was
done) or RulesUnavailable. Blocks: for use in a thread; the library lets go of Python's lock meanwhile. One element
takes 0.3 ms by the library and 4 ms by the program.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Callable

from nodeagent.proxy.mode import RulesRefused, RulesUnavailable

_LIBRARY = "libnftables.so.1"
_DEADLINE = 60.0
Run = Callable[[str], None]


@functools.cache
def runner() -> Run:
    """How scripts are run on this machine. Raises RulesUnavailable."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return by_program()
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_filename.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return functools.partial(_by_library, library)


def by_program() -> Run:
    """Run scripts by `nft`. Raises RulesUnavailable where it is not installed."""
    program = shutil.which("nft")
    if program is None:
        raise RulesUnavailable("cannot program services: neither libnftables nor nft is installed")
    return functools.partial(_by_program, program)


def _by_library(library: ctypes.CDLL, script: str) -> None:
    # A context of its own each time: one that is kept believes what it has read before.
    context = library.nft_ctx_new(0)
    if not context:
        raise RulesUnavailable("cannot program services: libnftables gives no context")
    try:
        # A file, in memory: of a buffer the library does not say which line is wrong.
        with os.fdopen(os.memfd_create("podplane-nft"), "wb") as file:
            file.write(script.encode())
            file.flush()
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            if library.nft_run_cmd_from_filename(context, f"/proc/self/fd/{file.fileno()}".encode()) != 0:
                said = library.nft_ctx_get_error_buffer(context) or b"no reason given"
                raise RulesRefused(said.decode(errors="replace"))
    except OSError as error:
        raise RulesUnavailable(f"cannot give a script to libnftables: {error}") from error
    finally:
        library.nft_ctx_free(context)


def _by_program(program: str, script: str) -> None:
    try:
        done = subprocess.run([program, "-f", "-"], input=script.encode(), capture_output=True, timeout=_DEADLINE)
    except subprocess.TimeoutExpired:
        raise RulesUnavailable(f"{program} did not end within {_DEADLINE:g} s") from None
    except OSError as error:
        raise RulesUnavailable(f"cannot run {program}: {error}") from error
    if done.returncode != 0:
        raise RulesRefused(done.stderr.decode(errors="replace") or f"{program}: exit status {done.returncode}")

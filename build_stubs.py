"""Generates the protobuf and gRPC stubs: a hatchling build hook, and `python build_stubs.py [DIRECTORY]`.

Owns nothing else. The stubs are never edited and never committed; `make check` fails where they are stale.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent


def generate(destination: Path) -> list[Path]:
    """Write the stubs of every file in protos/ below `destination`; raise RuntimeError where protoc refuses one."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    protos = ROOT / "protos"
    sources = sorted(protos.rglob("*.proto"))
    # In pip's isolated build the plugin stands on PATH, in a virtual environment beside the interpreter.
    plugin = shutil.which("protoc-gen-mypy") or str(Path(sys.executable).parent / "protoc-gen-mypy")
    well_known = resources.files("grpc_tools") / "_proto"
    outcome = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"-I{well_known}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--python_out={destination}",
            f"--mypy_out=quiet:{destination}",
            *map(str, sources),
        ]
    )
    if outcome != 0:
        raise RuntimeError(f"cannot generate stubs: protoc ended with {outcome}; its words are above")
    package = destination / "podplane" / "v1"
    (package / "__init__.py").write_text('"""Generated from protos/podplane/v1. Do not edit."""\n')
    return sorted(package.glob("*.py*"))


def _hook() -> type[Any]:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
            build_data["artifacts"].extend(f"/{path.relative_to(ROOT)}" for path in generate(ROOT))

    return StubsHook


def get_build_hook() -> type[Any]:
    """The entry point that hatchling looks for."""
    return _hook()


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)

"""The agent's end of a session, where the other end goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from nodeagent.certificates import Identity
from nodeagent.paths import Paths
from nodeagent.pods.clock import Clock
from nodeagent.pods.objects import Objects
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.tools import NodeFacts
from nodeagent.receiver import FrameReceiver
from nodeagent.session import CONNECT, Session, SessionLost
from podplane.v1.session_pb2 import AgentFrame


async def test_a_write_after_the_streams_end_is_a_lost_session(tmp_path: Path) -> None:
    """The writer may be sooner to meet the end than the reader: it once ended the agent, at the control plane's."""

    async def gone(_requests: object, context: grpc.aio.ServicerContext[object, object]) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    server = grpc.aio.server()
    _, service, method = CONNECT.split("/")
    handler: grpc.RpcMethodHandler[object, object] = grpc.stream_stream_rpc_method_handler(gone)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_stream(CONNECT, request_serializer=AgentFrame.SerializeToString)()
            await call.code()
            paths, outbox = Paths(tmp_path, tmp_path), Outbox(NodeFacts("n1", "10.0.0.1"), Clock())
            receiver = FrameReceiver(paths, "n1", Objects(paths), outbox, lambda _welcome: None)
            session = Session(lambda: Identity("n1", "", b"", b"", b"", 0, 0), outbox, receiver)
            with pytest.raises(SessionLost, match="UNAVAILABLE: going away"):
                await session._write(call, AgentFrame())
    finally:
        await server.stop(None)

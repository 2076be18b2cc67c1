"""containerd's CRI, with Debian's CNI bridge plugin: the calls that a kubelet makes for the same pod."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench import standing
from bench.peers.base import Skipped
from tests.support.images import BUSYBOX, layout
from tests.support.waiting import eventually

IMAGE = "docker.io/library/bench:1"
# The sandbox container runs this image's own command, so it must be one that stays.
STAYING = replace(BUSYBOX, config={"Cmd": ["/bin/sleep", "infinity"]})
EXITED, RUNNING = 2, 1

CONFIG = """version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "bench"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bench]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bench.options]
        BinaryName = "{runtime}"
"""

CNI = {
    "cniVersion": "0.4.0",
    "name": "bench",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni-bench",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "198.19.240.0/20"}]]},
        }
    ],
}


class Containerd:
    """A containerd of our own in its own mount and network namespaces, so that it leaves nothing on the machine."""

    def __init__(self, directory: Path, runtime: str = "crun") -> None:
        for program, package in (("containerd", "containerd"), (runtime, runtime)):
            if shutil.which(program) is None:
                raise Skipped(f"SKIPPED: apt-get install {package}")
        if not Path("/usr/lib/cni/bridge").exists():
            raise Skipped("SKIPPED: apt-get install containernetworking-plugins")
        self.name = f"containerd CRI + {runtime}"
        self._directory = directory
        self._sandboxes: dict[str, str] = {}
        self._messages = _messages(directory)
        self._process = self._serve(runtime)
        self._channel = grpc.insecure_channel(f"unix:{directory}/containerd.sock")
        grpc.channel_ready_future(self._channel).result(timeout=30)
        self._load()

    def _serve(self, runtime: str) -> subprocess.Popen[bytes]:
        (self._directory / "cni").mkdir(parents=True)
        (self._directory / "cni" / "bench.conflist").write_text(json.dumps(CNI))
        config = self._directory / "config.toml"
        config.write_text(CONFIG.format(root=self._directory, image=IMAGE, runtime=shutil.which(runtime)))
        # crun refuses a hybrid cgroup layout; in a mount namespace of its own the v2 tree can go.
        script = (
            "mount -t tmpfs tmpfs /run; umount /sys/fs/cgroup/unified 2>/dev/null; "
            'ip link set lo up; exec containerd --config "$0"'
        )
        argv = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script, str(config)]
        with (self._directory / "log").open("wb") as log:
            return subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _load(self) -> None:
        archive = self._directory / "image.tar"
        source = f"oci:{layout(STAYING)}:latest"
        subprocess.run(["skopeo", "copy", "-q", source, f"docker-archive:{archive}:{IMAGE}"], check=True, timeout=60)
        ctr = ["ctr", "-a", f"{self._directory}/containerd.sock", "-n", "k8s.io", "images", "import", str(archive)]
        eventually(lambda: subprocess.run(ctr, capture_output=True, timeout=60, check=False).returncode == 0, 30)

    def start(self, pod: str) -> None:
        config = {
            "metadata": {"name": pod, "uid": pod, "namespace": "bench"},
            "hostname": pod,
            "log_directory": f"{self._directory}/logs/{pod}",
            "linux": {"cgroup_parent": f"/podplane-bench/{pod}"},
        }
        sandbox = self._call("RunPodSandbox", "RunPodSandboxRequest", "RunPodSandboxResponse", config=config)
        self._sandboxes[pod] = sandbox.pod_sandbox_id
        first = self._container(pod, config, "first", ["/bin/true"])
        while self._state(first) != EXITED:
            # CRI 1.6 has no events: a kubelet polls too, though a thousand times more slowly.
            time.sleep(0.001)
        main = self._container(pod, config, "main", ["/bin/sleep", "3600"])
        assert self._state(main) == RUNNING

    def _container(self, pod: str, sandbox: dict[str, Any], name: str, command: list[str]) -> str:
        config = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": command,
            "log_path": f"{name}.log",
        }
        created = self._call(
            "CreateContainer", "CreateContainerRequest", "ContainerRequest",
            pod_sandbox_id=self._sandboxes[pod], config=config, sandbox_config=sandbox,
        )  # fmt: skip
        self._call("StartContainer", "ContainerRequest", "Empty", container_id=created.container_id)
        return str(created.container_id)

    def _state(self, container: str) -> int:
        answer = self._call("ContainerStatus", "ContainerRequest", "ContainerStatusResponse", container_id=container)
        return int(answer.status.state)

    def delete(self, pod: str) -> None:
        sandbox = self._sandboxes.pop(pod)
        self._call("StopPodSandbox", "PodSandboxRequest", "Empty", pod_sandbox_id=sandbox)
        self._call("RemovePodSandbox", "PodSandboxRequest", "Empty", pod_sandbox_id=sandbox)

    def _call(self, method: str, request: str, answer: str, **fields: Any) -> Any:
        stub: Any = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages[answer].FromString,
        )
        return stub(self._messages[request](**fields), timeout=60)

    def processes(self) -> set[int]:
        return standing.family(lambda line: str(self._directory) in line)

    def close(self) -> None:
        for pod in list(self._sandboxes):
            self.delete(pod)
        self._channel.close()
        self._process.terminate()
        self._process.wait(timeout=30)
        for group in Path("/sys/fs/cgroup").glob("*/podplane-bench"):
            for path, _, _ in os.walk(group, topdown=False):
                os.rmdir(path)
        shutil.rmtree(self._directory, ignore_errors=True)


def _messages(directory: Path) -> dict[str, Any]:
    """The classes of cri.proto, made at run time in a pool of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("cri.proto")
    compiled = directory / "cri.pb"
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled}"]
    subprocess.run([*argv, source.name], check=True, timeout=30)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = [pool.FindMessageTypeByName(f"runtime.v1.{message.name}") for message in file.message_type]
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}

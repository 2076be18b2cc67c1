"""One container instance, ready for the runtime: environment, command, mounts and limits of the newest spec.

Looks up what the agent holds (config maps, secrets, services, the volumes' paths) and pins sub-paths. Fails with
ConfigFailure, VolumeFailure, ImageFailure, in the words that people see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nodeagent.pods import netfiles, requests
from nodeagent.pods.effects import CreateContainer, Tell
from nodeagent.pods.state import PodState
from nodeagent.pods.tools import Tools
from nodeagent.runtime.environment import ConfigFailure, PodFacts, command_line, environment
from nodeagent.runtime.expansion import expand, missing
from nodeagent.runtime.image import Image
from nodeagent.runtime.payload import is_payload
from nodeagent.types import ContainerRequest, Mount, Sandbox
from podplane.v1.container_pb2 import Container, VolumeMount

_PROPAGATION = {"": "rprivate", "None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
Variables = Sequence[tuple[str, str]]


def facts(tools: Tools, state: PodState) -> PodFacts:
    """What the downward API may say of this pod on this node."""
    address = tools.facts.ip if state.pod.spec.hostNetwork else state.address
    return PodFacts(
        node_name=tools.facts.name,
        host_ip=tools.facts.ip,
        pod_ip=address,
        allocatable=tools.facts.allocatable,
    )


async def ensure_image(
    tools: Tools, state: PodState, name: str, on_progress: Callable[[str], None]
) -> tuple[Image, str]:
    """Have the container's image on the node, by its pull policy; with the event's words. Raises ImageFailure."""
    container = requests.spec_of(state, name)
    init = state.container(name).init
    logins, absent = requests.pull_logins(state.pod, tools.objects.secrets)
    asked: list[float] = []

    def pulling() -> None:
        asked.append(tools.clock.now())
        if absent:
            words = f"Unable to retrieve some image pull secrets ({', '.join(absent)})"
            words += "; attempting to pull the image may not succeed."
            tools.reports.event(state.pod, Tell("Warning", "FailedToRetrieveImagePullSecret", words))
        tools.reports.event(state.pod, Tell("Normal", "Pulling", f'Pulling image "{container.image}"', name, init))

    policy = requests.pull_policy(container)
    ensure = tools.images.ensure
    image = await ensure(container.image, policy, logins=logins, on_pull=pulling, on_progress=on_progress)
    if not asked:
        return image, f'Container image "{container.image}" already present on machine'
    return image, f'Successfully pulled image "{container.image}" in {tools.clock.now() - asked[0]:.3f}s'


async def compose(
    tools: Tools, state: PodState, effect: CreateContainer, sandbox: Sandbox, volumes: Mapping[str, Path]
) -> ContainerRequest:
    """The request. Raises ConfigFailure, VolumeFailure."""
    pod, container = state.pod, requests.spec_of(state, effect.container)
    objects = tools.objects
    variables = environment(
        pod, container, facts(tools, state), objects.config_maps, objects.secrets, objects.services.values()
    )
    mounts = [
        await _mount(tools, state, container, index, variables, volumes) for index in range(len(container.volumeMounts))
    ]
    mounts += _name_files(tools, state, mounts)
    return ContainerRequest(
        pod_uid=state.uid,
        namespace=pod.metadata.namespace,
        pod_name=pod.metadata.name,
        name=container.name,
        attempt=effect.attempt,
        image=effect.image_id,
        command=command_line(container.command, variables),
        args=command_line(container.args, variables),
        env=tuple(variables),
        working_dir=container.workingDir,
        mounts=tuple(mounts),
        sandbox=sandbox,
        resources=requests.resources(container),
        security=requests.security(pod, container),
        cgroup=requests.cgroup(tools.facts.cgroup_root, state, container.name, effect.attempt),
        stdin=container.stdin,
        stdin_once=container.stdinOnce,
        tty=container.tty,
        host_pid=pod.spec.hostPID,
        termination_message_path=container.terminationMessagePath or "/dev/termination-log",
        log_is_message=container.terminationMessagePolicy == "FallbackToLogsOnError",
        oom_score_adj=requests.oom_score_adj(pod, container, tools.facts.memory),
        hostname=netfiles.hostname(pod, tools.naming),
    )


async def _mount(
    tools: Tools,
    state: PodState,
    container: Container,
    index: int,
    variables: Variables,
    volumes: Mapping[str, Path],
) -> Mount:
    wanted = container.volumeMounts[index]
    if wanted.name not in volumes:
        raise ConfigFailure(f'volumeMount "{wanted.name}" of container "{container.name}" names no volume of the pod')
    source = volumes[wanted.name]
    ours = any(volume.name == wanted.name and is_payload(volume) for volume in state.pod.spec.volumes)
    await tools.volumes.check_propagation(source, wanted.mountPropagation)
    below = _sub_path(wanted, variables)
    if below:
        source = await tools.volumes.subpath(state.uid, container.name, index, source, below)
    return Mount(
        source=source,
        destination=wanted.mountPath,
        read_only=wanted.readOnly or ours,
        propagation=_PROPAGATION[wanted.mountPropagation],
        recursive=True,
    )


def _sub_path(wanted: VolumeMount, variables: Variables) -> str:
    if not wanted.subPathExpr:
        return wanted.subPath
    known = dict(variables)
    absent = missing(wanted.subPathExpr, known)
    if absent:
        raise ConfigFailure(f'subPathExpr "{wanted.subPathExpr}" refers to variables that are not set: '
                            f"{', '.join(absent)}")  # fmt: skip
    return expand(wanted.subPathExpr, known)


def _name_files(tools: Tools, state: PodState, mounts: Sequence[Mount]) -> list[Mount]:
    """/etc/hosts and its kin, unless the container mounts something of its own there."""
    taken = {mount.destination.rstrip("/") for mount in mounts}
    directory = netfiles.directory(tools.paths, state.uid)
    return [
        Mount(directory / name, f"/etc/{name}", recursive=False)
        for name in netfiles.FILES
        if f"/etc/{name}" not in taken and "/etc" not in taken
    ]

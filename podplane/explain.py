"""What every status means, why it comes about and what to do: the rows of `podctl explain STATUS`. Data, pure.

Older and longer names resolve: DockerDaemonNotReady, `Init:CrashLoopBackOff`, `ExitCode:3`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from podplane.errors import NotFound


@dataclass(frozen=True, slots=True)
class Explanation:
    """One status. `kind`: where it appears, for example `waiting reason of a container`."""

    name: str
    kind: str
    meaning: str
    cause: str
    fix: str


_WAITING = "waiting reason of a container"
_TERMINATED = "terminated reason of a container"
_SHOWN = "STATUS column of a pod"
_PHASE = "phase of a pod"
_CONDITION = "condition of a pod"
_REASON = "status.reason of a pod"
_NODE = "reason of a node's Ready condition"

_LOGS = "`podctl logs POD -c CONTAINER --previous` shows what it said last"
_DESCRIBE = "`podctl describe pod POD` shows its events"

EXPLANATIONS: tuple[Explanation, ...] = (
    Explanation(
        "Unschedulable",
        "reason of a pod's PodScheduled condition",
        "No node can take the pod, so it waits for one.",
        "Every node fails at least one filter: resources, node selector or affinity, taints, host ports, readiness. "
        "The condition's message counts the nodes by filter.",
        "Change what the message names on the node that is nearest to fitting: lower the requests, add the label, "
        "tolerate or remove the taint, free the port, or add a node.",
    ),
    Explanation(
        "Pending",
        _PHASE,
        "The pod is accepted, but not all of its containers have started.",
        "It has no node yet, its volumes are not mounted (event FailedMount), or its images are not there.",
        f"Give it a moment; if it stays, {_DESCRIBE}.",
    ),
    Explanation(
        "Succeeded",
        _PHASE,
        "Every container ended with exit code 0 and none will be restarted.",
        "The pod's work is done and its restartPolicy is Never or OnFailure.",
        "Nothing to do; delete the pod when its logs are not needed any more.",
    ),
    Explanation(
        "Failed",
        _PHASE,
        "All containers have ended, at least one of them in failure, and none will be restarted.",
        "A non-zero exit under restartPolicy Never, an eviction, a deadline (DeadlineExceeded), or a node that turned "
        "the pod away (OutOfcpu and its like); status.reason says which.",
        f"Read status.message; {_LOGS}. Create the pod again once the cause is gone.",
    ),
    Explanation(
        "Unknown",
        _SHOWN,
        "Nobody knows how the pod is: its node has not reported for longer than its grace period.",
        "The node is down or cut off from the control plane, or its agent has stopped. The containers may well run on.",
        "Look at the node: `podctl get nodes`, then the machine and the podplane-nodeagent unit on it. If it stays "
        "silent, the pod is replaced elsewhere when its toleration ends.",
    ),
    Explanation(
        "Init:i/n",
        _SHOWN,
        "Init container i of n runs (i counts those that have completed).",
        "Init containers run one after the other, each to exit code 0, before the app containers start.",
        "Nothing, while it makes progress; `podctl logs POD -c INIT_CONTAINER` shows what it is doing.",
    ),
    Explanation(
        "Initialized",
        _CONDITION,
        "True once all init containers have completed; False with ContainersNotInitialized until then.",
        "Init containers must end with exit code 0, in order.",
        "Where it stays False, look at the init container that the message names.",
    ),
    Explanation(
        "ImagePullBackOff",
        _WAITING,
        "A pull has failed, and the next attempt waits: 10 s at first, doubling up to 300 s.",
        "The same as of the failure before it, which the message repeats together with the time of the next try.",
        "Mend what the last error names: the image's name or tag, the credentials, the registry.",
    ),
    Explanation(
        "ErrImagePull",
        _WAITING,
        "The image could not be pulled just now.",
        "The registry refused: no such image or tag (404), no permission (401, 403), too many requests (429), in its "
        "own words; or what it sent was cut off, has a wrong digest, is for another platform, or leaves its layer.",
        "Correct the image's name or tag, or give imagePullSecrets; it is tried again by itself.",
    ),
    Explanation(
        "InvalidImageName",
        _WAITING,
        "The image reference cannot be parsed; no registry was asked.",
        "Capital letters in the repository, blanks, a stray colon or an empty tag.",
        "Write it as [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case.",
    ),
    Explanation(
        "ImageInspectError",
        _WAITING,
        "The image is on the node, but cannot be used.",
        "Its configuration or a layer cannot be read, or a digest does not match: a damaged disk or a broken write.",
        "Remove the image from the node's store so that it is pulled again, and check the node's disk.",
    ),
    Explanation(
        "ErrImageNeverPull",
        _WAITING,
        "The image is not on the node and must not be pulled.",
        "imagePullPolicy is Never and nobody has put the image there.",
        "Load the image onto the node, or use imagePullPolicy IfNotPresent.",
    ),
    Explanation(
        "RegistryUnavailable",
        _WAITING,
        "The registry cannot be reached, or is broken.",
        "Connection refused or timed out, a name that does not resolve, a TLS failure, or an answer of 5xx.",
        "Check the registry, the node's DNS, its route and its registries.conf; pulls go on by themselves, after "
        "ImagePullBackOff.",
    ),
    Explanation(
        "CreateContainerConfigError",
        _WAITING,
        "The container cannot be put together from its spec.",
        "A ConfigMap, a Secret or a key that it needs is missing, or runAsNonRoot is set and the image runs as root.",
        "Create the object or key that the message names, or correct the reference; it is tried again by itself.",
    ),
    Explanation(
        "CreateContainerError",
        _WAITING,
        "The container runtime refused to create the container.",
        "The message holds the runtime's own words: a bad mount, an option that the kernel lacks, no space.",
        "Mend what the runtime names, in the pod or on the node.",
    ),
    Explanation(
        "RunContainerError",
        _WAITING,
        "The container was created, but could not be started.",
        "Its command does not exist in the image or is not executable; it then counts as ended with StartError, "
        "exit code 128.",
        "Correct `command` and `args`, or the image.",
    ),
    Explanation(
        "StartError",
        _TERMINATED,
        "The container could not be started; exit code 128.",
        "Its command does not exist in the image or is not executable (see RunContainerError).",
        "Correct `command` and `args`, or the image.",
    ),
    Explanation(
        "PostStartHookError",
        _WAITING,
        "The postStart hook failed, and the container was killed for it.",
        "The hook's command ended with a non-zero exit code, or its request was not answered.",
        "Read the event FailedPostStartHook, and mend the hook.",
    ),
    Explanation(
        "ContainerCreating",
        _WAITING,
        "The pod's sandbox, volumes and images are being prepared.",
        "What every pod without init containers goes through after it was bound to a node.",
        f"Nothing, for a moment; if it stays, {_DESCRIBE} (FailedMount, FailedCreatePodSandBox).",
    ),
    Explanation(
        "PodInitializing",
        _WAITING,
        "As ContainerCreating, in a pod with init containers: app containers wait for them.",
        "The init containers have not all completed, or the app's image is still being pulled.",
        "Look at the init containers; `Init:i/n` in the STATUS column says how far they are.",
    ),
    Explanation(
        "Waiting",
        "state of a container",
        "The container does not run yet, or not again yet; its reason says why.",
        "ContainerCreating, PodInitializing, CrashLoopBackOff, or one of the image and create errors.",
        "`podctl explain REASON`.",
    ),
    Explanation(
        "Running",
        _PHASE,
        "The pod is on a node, its sandbox is up, and at least one container runs, starts or restarts.",
        "The normal state; whether it also takes traffic is the Ready condition.",
        "Nothing to do.",
    ),
    Explanation(
        "Ready",
        _CONDITION,
        "All containers are ready and all readiness gates are true: services send traffic.",
        "False with ContainersNotReady names the containers that are not.",
        "Look at those containers: their state, their readiness probe, their logs.",
    ),
    Explanation(
        "NotReady",
        _SHOWN,
        "One container has completed, another runs, and the pod is not ready.",
        "A container that was meant to stay has ended with exit code 0.",
        f"{_LOGS}; check that its command does not end.",
    ),
    Explanation(
        "Error",
        _TERMINATED,
        "The container ended with an exit code other than 0.",
        "The program failed; 128 + n means that signal n ended it (137 is SIGKILL, 143 SIGTERM).",
        f"See the exit code in `podctl describe pod POD`; {_LOGS}.",
    ),
    Explanation(
        "Completed",
        _TERMINATED,
        "The container ended with exit code 0.",
        "Its program has done its work.",
        "Nothing for a job; a server that must go on should not return.",
    ),
    Explanation(
        "OOMKilled",
        _TERMINATED,
        "The kernel killed the container, or a process in it, for more memory than its limit; exit code 137. One that "
        "ended with 0 nevertheless is Completed; its message tells of the limit.",
        "The memory limit is too low for what it does, or it leaks. The message gives limit and peak.",
        "Raise resources.limits.memory above the peak, or make the program use less.",
    ),
    Explanation(
        "CrashLoopBackOff",
        _WAITING,
        "The container ends again and again; the next start waits: 10 s at first, doubling up to 300 s, and from "
        "the start again after 10 minutes up.",
        "Its program fails soon after it starts; the message has the last exit and the next try.",
        f"{_LOGS}: mend the cause of the exit.",
    ),
    Explanation(
        "Terminating",
        _SHOWN,
        "The pod is being deleted, and not all of its containers are gone yet.",
        "They were sent SIGTERM and have until the end of the grace period; or the node does not answer, or a "
        "finalizer holds the pod.",
        "Wait for the grace period. If the node is gone for good, `podctl delete pod POD --force --grace-period=0`.",
    ),
    Explanation(
        "NodeLost",
        _REASON,
        "The pod was given up because its node stopped reporting; a replacement runs elsewhere.",
        "The node was silent for longer than its grace period and the pod's toleration.",
        "Bring the node back, and it removes the pod; or delete the node if it is gone for good.",
    ),
    Explanation(
        "Evicted",
        _REASON,
        "The node ended the pod to save itself.",
        "The node ran short of memory, disk or process ids; the message says of which.",
        "Free that resource on the node, or give the pod requests that match what it uses.",
    ),
    Explanation(
        "DeadlineExceeded",
        _REASON,
        "The pod ran for longer than its activeDeadlineSeconds and was ended.",
        "The work took longer than was allowed.",
        "Raise activeDeadlineSeconds, or make the work shorter.",
    ),
    Explanation(
        "ContainersNotInitialized",
        "reason of a pod's Initialized condition",
        "Not all init containers have completed; the message names those that have not.",
        "One of them still runs, fails, or cannot start.",
        "`podctl logs POD -c INIT_CONTAINER` of the first that is named.",
    ),
    Explanation(
        "ContainersNotReady",
        "reason of a pod's Ready condition",
        "Not all containers are ready; the message names those that are not.",
        "They have not started, have ended, or fail their readiness probe.",
        "Look at those containers: their state, their probe (event Unhealthy), their logs.",
    ),
    Explanation(
        "ContainerRuntimeNotReady",
        _NODE,
        "The node cannot run containers.",
        "runc or crun or conmon is missing, too old (conmon 2.1, crun 1.8, runc 1.1 at least), or fails its self-test; "
        "the message says which.",
        "Install or repair what the message names on the node; the agent finds it by itself.",
    ),
    Explanation(
        "NetworkPluginNotReady",
        _NODE,
        "The node cannot connect pods; pods with a network of their own wait.",
        "The bridge, the pod CIDR, IP forwarding or the proxy's backend cannot be set up; the message says which.",
        "Repair what the message names on the node; the agent tries again by itself.",
    ),
    Explanation(
        "AgentReady",
        _NODE,
        "The node takes pods.",
        "Its agent reports, and runtime and network work.",
        "Nothing to do.",
    ),
    Explanation(
        "NodeStatusUnknown",
        _NODE,
        "The node has not reported for longer than its grace period.",
        "The machine is down or cut off, or its agent has stopped.",
        "Look at the machine, its route to the control plane and the podplane-nodeagent unit.",
    ),
    Explanation(
        "ContainerStatusUnknown",
        _TERMINATED,
        "Nobody knows how a container ended that the agent knew was running; exit code 137 stands for unknown.",
        "The machine was rebooted or lost power, the conmon that watched the container was killed (the container was "
        "ended then), or somebody removed the container behind the agent's back.",
        "Nothing, if the node was restarted: the pod's restartPolicy applies. Otherwise find out who did it.",
    ),
    Explanation(
        "FailedToProgramService",
        "reason of a service's event",
        "A node could not make rules of the service; what rules it had stay, and other services are not concerned.",
        "The message has the words of the refusal: an address that another service has, a family that is not "
        "supported, or what the kernel or its tool says.",
        "Change what the message names; the node tries again every few seconds. `podctl why service NAME` shows what "
        "each node lacks.",
    ),
    Explanation(
        "FailedToStartServiceHealthcheck",
        "reason of a service's event",
        "A node cannot answer a load balancer's health checks for the service; its rules are there all the same.",
        "Another program listens on the service's healthCheckNodePort on that node.",
        "Stop that program, or give the service another healthCheckNodePort; the node tries again every few seconds.",
    ),
    Explanation(
        "SchedulingGated",
        _SHOWN,
        "The pod is held back from scheduling.",
        "Its spec lists schedulingGates that somebody must remove.",
        "Remove the gates, or ask whoever set them.",
    ),
)

OLDER_NAMES = {
    "DockerDaemonNotReady": "ContainerRuntimeNotReady",
    "KubeletReady": "AgentReady",
    "KubeletNotReady": "ContainerRuntimeNotReady",
    "CNINotReady": "NetworkPluginNotReady",
    "NetworkPluginNotInitialized": "NetworkPluginNotReady",
    "ContainerCannotRun": "RunContainerError",
    "RunInitContainerError": "RunContainerError",
    "ErrImagePullBackOff": "ImagePullBackOff",
}

_BY_NAME = {one.name.lower(): one for one in EXPLANATIONS}
_OLDER = {old.lower(): name.lower() for old, name in OLDER_NAMES.items()}
_PATTERNS = ((re.compile(r"init:\d+/\d+"), "init:i/n"), (re.compile(r"(init:)?(exitcode|signal):\d+"), "error"))


def explain(word: str) -> Explanation:
    """The row of a status as people see or remember it, in any case. NotFound names the nearest."""
    name = word.strip().lower()
    for pattern, meant in _PATTERNS:
        if pattern.fullmatch(name):
            return _BY_NAME[meant]
    for candidate in (name, name.removeprefix("init:")):
        found = _BY_NAME.get(_OLDER.get(candidate, candidate))
        if found is not None:
            return found
    near = get_close_matches(name, _BY_NAME, 1)
    hint = f"; did you mean {_BY_NAME[near[0]].name}?" if near else "."
    raise NotFound(f'no status "{word}" is known{hint} Known: {", ".join(one.name for one in EXPLANATIONS)}')

"""What rides on reverse streams besides logs: exec, attach and port-forward (D5).

call.py          one stream to the control plane: its frames, its end
exec.py          a command in a container; child.py the runtime's process, lineage.py its descendants
attach.py        a container's own stdio; attached.py the connections to conmon
port_forward.py  a connection to a port of the pod, from within its network namespace
pumps.py         between descriptors and streams
"""

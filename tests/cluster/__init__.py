"""The real daemons: a control plane and node agents, each node in namespaces of its own."""

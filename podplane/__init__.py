"""What the control plane, the node agent and podctl share: stubs, kinds, manifests, quantities, statuses, TLS."""

__version__ = "0.1.0"

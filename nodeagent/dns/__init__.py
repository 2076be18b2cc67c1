"""The node's DNS server: names of services and pods from what the node knows, everything else from its own servers."""

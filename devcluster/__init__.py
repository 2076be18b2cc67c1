"""A whole cluster on one machine, for people who try Podplane and for its tests.

Every node is a network and a mount namespace of its own, with a private /run and /tmp, as if it were a VM; the
nodes meet on a bridge in a namespace of its own, to which this machine has one cable. Only the programs that
users have are run. Never part of a production installation.
"""

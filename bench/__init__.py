"""One command per claim, beside the peer in the same run: `make bench` runs them all."""

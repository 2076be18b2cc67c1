"""What the node keeps for itself, when it is short of something, and which pod then has to go."""

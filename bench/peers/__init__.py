"""The peers, started and removed by the bench: each with state and namespaces of its own."""

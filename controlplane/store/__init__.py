"""The store: one append-only, revisioned log (D3), and the watch cache above it (D4)."""

"""Manifests in and out: YAML and JSON to messages and back, by descriptor.

`reading` is the one strict walk from text to messages, `printing` the one printer. Both are pure.
"""

"""Pods on this node: a pure state machine, the worker that performs what it decides, journal and recovery."""

"""Moves to and from real OpenClaw gateways, which answer meanwhile (`make openclaw`)."""

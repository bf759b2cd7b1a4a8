"""Programs that use sessiondb as its users do: only its public API, and nothing that is
not installed with it.
"""

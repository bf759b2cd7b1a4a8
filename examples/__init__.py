"""Programs that use sessiondb as its users do.

They use only its public API, and nothing that is not installed with it.
"""

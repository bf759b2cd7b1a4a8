"""One session's transcript: its entries, its path, its context, its compactions.

Knows nothing of gateways and files.
"""

"""The queue that a gateway runs on: inbox, turns, outbox, the loops over them, and what a start does."""

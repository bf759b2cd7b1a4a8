"""The queue that a gateway runs on: inbox, turns, outbox, their loops, and start-up."""

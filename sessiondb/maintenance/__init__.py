"""What keeps a database healthy: archives, retention, pruning, verification, status."""

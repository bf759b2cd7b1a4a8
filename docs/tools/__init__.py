"""What builds the site besides MkDocs: generated parts, diagrams, links. Never installed."""

"""The pages of the site, and `tools/`, which makes their generated parts. None is installed."""

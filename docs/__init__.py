"""The pages of the site. `tools/` makes what is not written by hand; nothing of this is installed."""

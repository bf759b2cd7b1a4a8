"""The judge of imports: the real readers of pi, of OpenClaw and of pi's SDK.

`transcripts.py` makes transcripts from a seed. `judge.py` imports and exports them, `readers.py`
lets the real programs read them (by `readers.mjs`, in node), and `judge.py` compares. `make oracle`
runs it all at length (`__main__.py`).
"""

"""An application, and its test suite (`test_assistant.py`), which uses `sessiondb.testing`."""

"""What is done when the program ends: after its last `atexit` function, or before its first.

`atexit` functions run in the reverse order of their registration. `import sessiondb` imports this
module, so a function that the application registers later runs before what is registered here,
and still finds its databases open.

A child of `multiprocessing` that was forked runs no `atexit` function. It ends with
`os._exit`, and has finalizers of its own. There the same is done in one of those, which runs
last, once the child's threads have ended.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from typing import Any

_last: list[Callable[[], object]] = []
_child: set[int] = set()  # this process, if it is such a child and has its finalizer


def at_exit(function: Callable[[], object]) -> None:
    """Have a function called when the program ends. Called at import."""
    _last.append(function)


def expect_exit() -> None:
    """Make sure that the functions are called in this process. It has something to lose now."""
    process: Any = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None:
        return
    pid = process.current_process().pid
    if pid not in _child:
        _child.add(pid)
        util.Finalize(None, _end_child, exitpriority=-100)


def _end_child() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()  # as multiprocessing does right after its finalizers
    _end()


@atexit.register
def _end() -> None:
    for function in _last:
        function()

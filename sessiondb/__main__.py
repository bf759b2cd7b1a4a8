"""`sessiondb` and `python -m sessiondb` are the command line.

Until the command line is imported, and after it has ended, Ctrl-C ends the process as it
ends any program, without a traceback. In between the command line itself reports it.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; end the process with its exit code."""
    ctrl_c = signal.getsignal(signal.SIGINT)
    if ctrl_c is signal.default_int_handler:  # a shell ignores it for work in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import program

    program.main(prog_name="sessiondb")


if __name__ == "__main__":
    main()

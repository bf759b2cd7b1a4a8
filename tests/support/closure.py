"""Print sessiondb's requirements, and theirs, as they are installed.

For `make audit` and `test_packaging.py`.

    python tests/support/closure.py         name==version, one a line

Knows no extra of sessiondb. Reads only what the installed distributions say about
themselves.
"""

from __future__ import annotations

import re
from importlib.metadata import distribution

from pip._vendor.packaging.requirements import (
    Requirement,
)  # there wherever something can be installed


def closure(name: str = "sessiondb") -> dict[str, str]:
    """Return the requirements of a distribution, with their versions.

    Names are normalised. Only those of this Python and platform count.
    """
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or ():
            needed = Requirement(text)
            normal = re.sub(r"[-_.]+", "-", needed.name).lower()
            if normal not in found and (
                needed.marker is None or needed.marker.evaluate({"extra": ""})
            ):
                found[normal] = distribution(needed.name).version
                waiting.append(needed.name)
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(closure().items())))

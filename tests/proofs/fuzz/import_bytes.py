"""The coverage-guided fuzzer of the importer: atheris mutates bytes towards new lines of code.

    python tests/proofs/fuzz/import_bytes.py -runs=20000 [-max_total_time=600] [-seed=1] [FOLDER]

Options and corpus folders are libFuzzer's. Every input is imported on a `Bench`, which checks the
properties of all fuzzers (`proofs/fuzz/properties.py`). The first byte of an input is the place at
which it is cut into a file and what the file grows by. The first corpus is real transcripts and
lines, and the moves of `inputs.Chance` are mixed into libFuzzer's own. The fuzzer stops at the
first broken promise, and leaves the input in the current folder as `crash-...`. libFuzzer's
`-timeout` reports a hang.

It needs `pip install 'sessiondb[fuzz]'`. Without atheris it says so and exits with 3.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
NOT_INSTALLED = 3
sys.path.insert(0, str(ROOT))

try:
    import atheris
except ImportError:
    print(
        "fuzz: atheris is not installed (pip install 'sessiondb[fuzz]'); "
        "the coverage-guided fuzzer was left out"
    )
    raise SystemExit(NOT_INSTALLED) from None

INSTRUMENTED = (
    "json_text",
    "transfer.jsonl_reader",
    "transcript.entries",
    "transfer.source",
    "transcript.append",
    "transcript.context",
    "transfer.jsonl_writer",
    "transfer.roundtrip",
    "transcript.tokens",
    "maintenance.verify",
    "maintenance.verify_archives",
    "maintenance.verify_epochs",
    "maintenance.verify_session",
    "maintenance.verify_text",
    "transfer.openclaw_index",
    "cli.show",
)

with atheris.instrument_imports(include=[f"sessiondb.{name}" for name in INSTRUMENTED]):
    from sessiondb.maintenance import verify  # noqa: F401  # to be instrumented

# After the instrumentation, so that what these import is instrumented.
from tests.proofs.fuzz.inputs import Chance, real_lines, real_transcripts  # noqa: E402
from tests.proofs.fuzz.properties import Bench  # noqa: E402

# A seed that is much longer than an input that shows a mistake wastes runs.
SEED_BYTES_MAX = 3_000


def mutate(data: bytes, size_max: int, seed: int) -> bytes:
    """Mutate bytes by libFuzzer, or by a move on a transcript."""
    chance = Chance(seed)
    if chance.one_in(3):
        found: bytes = atheris.Mutate(data, size_max)
        return found
    return (data[:1] + (chance.spoiled(data[1:]) if chance.one_in(2) else chance.file()))[:size_max]


def seeds(folder: Path) -> str:
    """Write the corpus to begin with."""
    first = b"\x00"
    contents = [content for content in real_transcripts() if len(content) < SEED_BYTES_MAX]
    contents += [b"\n".join(random.Random(1).sample(real_lines(), 4)) for _ in range(8)]
    contents += [Chance(number).file() for number in range(40)]
    for number, content in enumerate(contents):
        (folder / f"seed-{number}").write_bytes(first + content[:SEED_BYTES_MAX])
    return str(folder)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        (folder / "work").mkdir()
        bench = Bench(folder / "work")

        def one(data: bytes) -> None:
            content = data[1:]
            cut = data[0] * len(content) // 256 if data[:1] > b"\x7f" else None
            bench.check(content, cut=cut)

        options: dict[str, Any] = {"custom_mutator": mutate}
        atheris.Setup(
            [
                sys.argv[0],
                "-max_len=6000",
                "-timeout=60",
                "-rss_limit_mb=2048",
                *arguments,
                seeds(folder / "corpus"),
            ],
            one,
            **options,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])

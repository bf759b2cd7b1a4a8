"""The wheel holds all that the package reads at run time, and works without the checkout.

It is built through the build backend's own interface (PEP 517), with the hatchling of the
`dev` extra: no registry, no network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.closure import closure

BUILD = "import sys, hatchling.build as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def run(*args: str, cwd: Path, **env: str) -> str:
    """Run this interpreter, and return its output. Fail with the output if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def build(kind: str, source: Path, dest: Path) -> Path:
    """Build `build_wheel` or `build_sdist` from a source folder, and return the file."""
    dest.mkdir(exist_ok=True)
    return dest / run("-c", BUILD, kind, str(dest), cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the checkout."""
    return build("build_wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution from the checkout."""
    return build("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return every file of a wheel but its record of itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")
        }


def test_the_wheel_holds_the_schema_all_sql_and_the_typing_mark(wheel: Path) -> None:
    held = contents(wheel)
    wanted = {
        f"sessiondb/{path.relative_to(ROOT / 'sessiondb')}": path
        for path in (ROOT / "sessiondb").rglob("*.sql")
    }
    wanted |= {
        "sessiondb/schema.sql": ROOT / "schema.sql",
        "sessiondb/py.typed": ROOT / "sessiondb" / "py.typed",
    }
    assert {name for name in wanted if held.get(name) != wanted[name].read_bytes()} == set()


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    package = {name for name in contents(wheel) if not name.split("/")[0].endswith(".dist-info")}
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sessiondb").rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert {name for name in package if name.endswith((".py", ".pyi"))} == modules
    # The rules of gitleaks, beside its licence.
    gitleaks = {f"sessiondb/transfer/gitleaks/{name}" for name in ("gitleaks.toml", "LICENSE")}
    assert gitleaks <= package
    assert {Path(name).suffix for name in package - gitleaks} <= {
        *(".py", ".pyi", ".sql", ".typed"),
        *(".css", ".js"),  # of the page that an export writes
    }


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    held = {
        name.split(".dist-info/")[1]: text.decode()
        for name, text in contents(wheel).items()
        if ".dist-info/" in name
    }
    assert "sessiondb = sessiondb.__main__:main" in held["entry_points.txt"]
    assert held["licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_a_wheel_built_from_the_sdist_is_the_same_wheel(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    # Unpacked by hand: extractall's `filter` is missing from 3.11.0 to 3.11.3, and 3.14
    # demands it.
    with tarfile.open(sdist) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            data = archive.extractfile(member)
            assert data is not None
            (tmp_path / member.name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / member.name).write_bytes(data.read())
    (source,) = tmp_path.iterdir()
    assert contents(build("build_wheel", source, tmp_path / "dist")) == contents(wheel)


def test_the_sdist_holds_the_tests_and_their_sample(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    sample = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / "sample").rglob("*")
        if path.is_file()
    }
    assert len(sample) > 40
    assert sample <= held
    assert {"schema.sql", "Makefile", "tests/conftest.py"} <= held


OPEN = """
import anyio, sys, sessiondb

async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        session = await db.session("agent:main:main")
        await session.append({"role": "user", "content": "hello"})
        print(sessiondb.__file__, len((await session.context()).messages))

anyio.run(main)
"""


def test_a_database_can_be_made_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """The checkout is not on the path, so the schema and the statements are the wheel's."""
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    origin, messages = run(
        "-c", OPEN, str(tmp_path / "gateway.db"), cwd=tmp_path, PYTHONPATH=str(installed)
    ).split()
    assert Path(origin).is_relative_to(installed)
    assert messages == "1"


def test_security_md_audits_exactly_what_sessiondb_needs() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    audited = re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)
    assert sorted(audited) == sorted(closure()), (
        "SECURITY.md, Dependencies: review the new package, and write which untrusted bytes it sees"
    )

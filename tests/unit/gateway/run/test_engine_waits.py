"""However long the database was away, the engine asks again within seconds of its return."""

import time

import psycopg
import pytest
from dbos._sys_db import db_retry
from sqlalchemy.exc import OperationalError

from gateway.run.dbos_setup import LONGEST_WAIT_S, bound_waits


def test_the_engine_asks_a_lost_database_again_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_s: list[float] = []
    monkeypatch.setattr(time, "sleep", waited_s.append)
    bound_waits()

    @db_retry()
    def ask() -> str:
        if sum(waited_s) < 600:
            raise OperationalError("SELECT 1", {}, psycopg.OperationalError(""), connection_invalidated=True)
        return "answered"

    assert ask() == "answered"
    assert max(waited_s) <= LONGEST_WAIT_S
    assert len(waited_s) < 200, "it waits between two looks"

"""``emit_on_commit`` in real transactions of SQLite, by Django and by SQLAlchemy."""

import contextlib
import json

import django
import pytest
from django.conf import settings as django_settings
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventbus import Bus, BusSettings, Event, InvalidPayload, NoOperation, TooManyDeferred, configure, default_bus
from eventbus.integrations import sqlalchemy as for_sqlalchemy
from eventbus.operations.events import OperationRef, current_operation


class Stored(Event, name="test.stored"):
    row: int


@pytest.fixture
def bus():
    former = default_bus()
    yield configure(bus=Bus(BusSettings(redis_url="memory://", commit_events=5)))
    configure(bus=former)


@pytest.fixture
def published(bus):
    def read():
        bus.flush(5)
        entries = bus.broker.read("user:ann", 0).log
        return [json.loads(entry.record.event)["data"]["row"] for entry in entries]

    return read


class Rollback(Exception):
    """Leaves a block."""


class DjangoRows:
    """A table of numbers, and an event for each."""

    def __init__(self, transaction, connections, emit_on_commit):
        self._transaction = transaction
        self._connections = connections
        self._emit = emit_on_commit
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS numbers")
            cursor.execute("CREATE TABLE numbers (n INTEGER)")

    def block(self):
        """A transaction, or a savepoint within one."""
        return self._transaction.atomic()

    def add(self, n, **options):
        with self._connections["default"].cursor() as cursor:
            cursor.execute(f"INSERT INTO numbers VALUES ({n})")
        return self.emit(n, **options)

    def emit(self, n, **options):
        return self._emit("ann", "op", Stored(row=n), **options)

    def all(self):
        with self._connections["default"].cursor() as cursor:
            cursor.execute("SELECT n FROM numbers ORDER BY n")
            return [n for (n,) in cursor.fetchall()]


class SessionRows:
    """The same of a session."""

    def __init__(self, engine):
        self.session = Session(engine)
        self.session.execute(text("CREATE TABLE numbers (n INTEGER)"))
        self.session.commit()

    def block(self):
        return self.session.begin_nested() if self.session.in_transaction() else self.session.begin()

    def add(self, n, **options):
        self.session.execute(text(f"INSERT INTO numbers VALUES ({n})"))
        return self.emit(n, **options)

    def emit(self, n, **options):
        return for_sqlalchemy.emit_on_commit(self.session, "ann", "op", Stored(row=n), **options)

    def all(self):
        with self.session.begin():
            return [n for (n,) in self.session.execute(text("SELECT n FROM numbers ORDER BY n"))]


@pytest.fixture(scope="module")
def django_database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("django")
    kind = {"ENGINE": "django.db.backends.sqlite3"}
    databases = {name: {**kind, "NAME": folder / f"{name}.sqlite"} for name in ("default", "other")}
    if not django_settings.configured:
        django_settings.configure(DATABASES=databases, USE_TZ=True)
        django.setup()
    from django.db import connections, transaction  # noqa: PLC0415 - only after the settings

    from eventbus.integrations.django import emit_on_commit  # noqa: PLC0415

    yield transaction, connections, emit_on_commit
    connections.close_all()


@pytest.fixture(params=["django", "sqlalchemy"])
def rows(request, bus):
    if request.param == "django":
        yield DjangoRows(*request.getfixturevalue("django_database"))
        return
    engine = create_engine("sqlite://")
    found = SessionRows(engine)
    yield found
    found.session.close()
    engine.dispose()


def test_after_the_commit_in_order_and_not_before(rows, published):
    with rows.block():
        receipts = [rows.add(1), rows.add(2)]
        with rows.block():
            rows.add(3)
        assert published() == []
        assert receipts[0].status == "waiting"
    assert published() == [1, 2, 3] == rows.all()
    assert [receipt.status for receipt in receipts] == ["published"] * 2


def test_nothing_after_a_rollback(rows, published):
    with contextlib.suppress(Rollback), rows.block():
        rows.add(1)
        with rows.block():
            rows.add(2)
        raise Rollback
    with rows.block():
        rows.add(3)
    assert published() == [3] == rows.all()


def test_events_of_an_undone_savepoint_are_not_published(rows, bus, published):
    with rows.block():
        rows.add(1)
        with contextlib.suppress(Rollback), rows.block():
            rows.add(2)
            with rows.block():
                rows.add(3)
            with rows.block():
                rows.add(4)
            raise Rollback
        with rows.block():
            rows.add(5)
            with contextlib.suppress(Rollback), rows.block():
                rows.add(6)
                raise Rollback
    assert published() == [1, 5] == rows.all()
    assert bus.outbox.dropped["rolled_back"] == (4 if isinstance(rows, SessionRows) else 0)


def test_outside_of_a_transaction_immediately(rows, published):
    rows.emit(1)
    assert published() == [1]


def test_a_mistake_is_an_error_where_it_is(rows, published):
    emit = rows._emit if isinstance(rows, DjangoRows) else rows.session
    emit = emit if callable(emit) else lambda *args: for_sqlalchemy.emit_on_commit(rows.session, *args)
    with rows.block():
        with pytest.raises(InvalidPayload):
            emit("ann", "op", {"row": 1})
        with pytest.raises(NoOperation):
            emit(Stored(row=1))
        rows.add(2)
    assert published() == [2]


def test_user_and_operation_are_those_of_the_call(rows, published):
    emit = rows._emit if isinstance(rows, DjangoRows) else None
    with rows.block():
        current_operation.set(OperationRef("ann", "op"))
        if emit is not None:
            emit(Stored(row=1))
        else:
            for_sqlalchemy.emit_on_commit(rows.session, Stored(row=1))
        current_operation.set(None)
        rows.add(2)
    assert published() == [1, 2]


def test_a_transaction_holds_so_many_and_no_more(rows, published):
    with rows.block():
        for n in range(5):
            rows.add(n)
        with pytest.raises(TooManyDeferred) as caught:
            rows.add(5)
        assert caught.value.limit == 5
    with rows.block():
        rows.add(6)
    assert published() == [0, 1, 2, 3, 4, 6]


def test_an_id_makes_it_idempotent(rows, published):
    for _ in range(2):
        with rows.block():
            rows.add(1, id="the-row")
    assert published() == [1]


def test_the_event_is_as_old_as_the_commit(rows, bus, monkeypatch):
    clock = [1_000_000_000]
    monkeypatch.setattr("eventbus.clock.time.time_ns", lambda: clock[0] * 1_000_000_000)
    with rows.block():
        rows.add(1)
        clock[0] += 3600
    bus.flush(5)
    (entry,) = bus.broker.read("user:ann", 0).log
    assert json.loads(entry.record.event)["time"] == clock[0] * 1000


def test_django_names_its_database(django_database, bus, published):
    transaction, _, emit_on_commit = django_database
    with transaction.atomic(using="other"):
        with transaction.atomic():
            emit_on_commit("ann", "op", Stored(row=1), using="other")
        assert published() == []
    assert published() == [1]


def test_a_rolled_back_session_counts_what_it_drops(bus, published):
    rows = SessionRows(create_engine("sqlite://"))
    lost = rows.add(1)
    rows.session.rollback()
    rows.add(2)
    rows.session.close()
    assert bus.outbox.dropped == {"rolled_back": 2}
    assert (lost.status, lost.reason) == ("dropped", "rolled_back")
    assert published() == []
    rows.session.get_bind().dispose()


def test_sessions_do_not_mix(bus, published):
    engine = create_engine("sqlite://")
    one, two = SessionRows(engine), scoped_session(sessionmaker(engine))
    one.add(1)
    two.execute(text("SELECT 1"))
    for_sqlalchemy.emit_on_commit(two, "ann", "op", Stored(row=2))
    two.commit()
    assert published() == [2]
    one.session.commit()
    assert published() == [2, 1]
    two.remove()
    engine.dispose()


async def test_an_async_session(bus, published):
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        async with session.begin():
            await session.execute(text("SELECT 1"))
            for_sqlalchemy.emit_on_commit(session, "ann", "op", Stored(row=1))
            assert published() == []
        assert published() == [1]
    await engine.dispose()

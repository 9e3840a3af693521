"""The Celery tasks: a chord whose header reads documents and whose body writes the index.

The tasks name no user, channel or Redis: the message headers carry the operation, and ``emit`` uses it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypedDict
from uuid import uuid4

from celery import Celery, Task, chord
from celery.canvas import Signature
from celery.exceptions import WorkerLostError

from demo.events import BatchProgress, DocumentFailed, DocumentIndexed, IndexReady
from demo.index import write_index
from demo.settings import DemoSettings, demo_settings
from demo.store import Source, Store
from demo.text import NotText, Text, read_text
from eventbus import emit
from eventbus.process_bus import default_bus
from worker_adapter import check_cancelled, install, stages

__all__ = ["TaskFactory", "app", "batch_tasks", "index_path", "indexing", "single_tasks", "store_of"]

# Writing a document to the index is this many times faster than reading it.
_WRITE_SPEEDUP: Final = 20


def make_app(settings: DemoSettings) -> Celery:
    """Return the Celery application. Broker and results use the Redis of the bus, in another database."""
    app = Celery("demo", broker=settings.broker, backend=settings.broker)
    keys = {"global_keyprefix": f"{settings.prefix}:"}
    app.conf.update(
        task_default_queue="demo",
        broker_transport_options=keys,
        result_backend_transport_options=keys,
        broker_connection_retry_on_startup=True,
        result_expires=3600,
        # Unfinished tasks of a killed worker run again. Their documents and events still count once.
        task_acks_late=True,
        # Only workers import this module. It lets the page kill them.
        imports=("demo.fault_injection",),
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    return app


app = make_app(demo_settings())
install(app)


class BatchDone(TypedDict):
    """The result of a batch, for the chord's body."""

    indexed: int
    failed: int
    words: int


def store_of(settings: DemoSettings) -> Store:
    """Return the database of the application."""
    return Store(settings.data / "site.sqlite")


def index_path(settings: DemoSettings, operation: str) -> Path:
    """Return the path of the index of an operation. The file exists when the index is ready."""
    return settings.data / "indexes" / f"{operation}.sqlite"


TaskFactory = Callable[[str], list[Signature]]
"""Creates the tasks that read the documents of an operation."""


def indexing(operation: str, tasks: TaskFactory) -> Signature:
    """Return the canvas of an operation."""
    return chord(tasks(operation), write.s(operation))


def batch_tasks(documents: int, size: int) -> TaskFactory:
    """Read documents in batches of ``size``. For many documents that are known to be harmless."""
    numbers = range(documents)
    batches = [list(numbers[start : start + size]) for start in range(0, documents, size)]
    return lambda operation: [index_batch.s(operation, number, members) for number, members in enumerate(batches, 1)]


def single_tasks(documents: int) -> TaskFactory:
    """Read each document in a separate task. A document that kills its process fails alone."""
    return lambda operation: [_file(operation, number) for number in range(documents)]


def _file(operation: str, number: int) -> Signature:
    task = uuid4().hex
    lost = file_lost.si(operation=operation, number=number, task=task)
    return index_file.s(operation, number).set(task_id=task).on_error(lost)


# The files of a batch are harmless, so a batch whose process was killed runs again.
@app.task(name="demo.index_batch", bind=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator] # no types
def index_batch(self: Task, operation: str, batch: int, numbers: Sequence[int]) -> BatchDone:
    """Read, split and tokenise some documents. A document that fails does not stop the others."""
    return _read(self.request.id, operation, batch, numbers)


# A file that killed its process would kill the next one too, so the task does not run again. It fails.
@app.task(name="demo.index_file", bind=True, reject_on_worker_lost=False)  # type: ignore[untyped-decorator]
def index_file(self: Task, operation: str, number: int) -> BatchDone:
    """Read, split and tokenise one document that may be harmful."""
    return _read(self.request.id, operation, number + 1, [number])


@app.task(name="demo.file_lost")  # type: ignore[untyped-decorator]
def file_lost(*, operation: str, number: int, task: str) -> None:
    """Report the failure of a document whose process was killed."""
    error = app.AsyncResult(task).result
    killed = isinstance(error, WorkerLostError)
    reason = "killed the process that read it" if killed else f"could not be read: {type(error).__name__}"
    store = store_of(demo_settings())
    store.failed(operation, number, reason)
    name = store.source(operation, number).name
    emit(DocumentFailed(document=name, reason=reason), id=f"{operation}-{number}")


def _read(task: str, operation: str, batch: int, numbers: Sequence[int]) -> BatchDone:
    done = BatchDone(indexed=0, failed=0, words=0)
    for position, number in enumerate(numbers):
        # A cancelled task keeps its finished documents and starts no others.
        check_cancelled()
        source = store_of(demo_settings()).source(operation, number)
        emit(BatchProgress(batch=batch, task=task, document=source.name, done=position, total=len(numbers)))
        text = _index(operation, number, source)
        if text is None:
            done["failed"] += 1
        else:
            done["indexed"] += 1
            done["words"] += text.words
    emit(BatchProgress(batch=batch, task=task, document="", done=len(numbers), total=len(numbers)))
    return done


def _index(operation: str, number: int, source: Source) -> Text | None:
    """Index one document. The database has it before the event, so the page can fetch it."""
    settings = demo_settings()
    store = store_of(settings)
    start = time.perf_counter()
    # A fixed id deduplicates the event if the batch runs again.
    event = f"{operation}-{number}"
    if source.kills:
        # A parser crashes after some time, so its progress event has been sent.
        default_bus().flush()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        text = read_text(source.path, settings.max_file_bytes)
    except NotText as error:
        store.failed(operation, number, str(error))
        emit(DocumentFailed(document=source.name, reason=str(error)), id=event)
        return None
    time.sleep(max(0.0, settings.pace - (time.perf_counter() - start)))
    store.indexed(operation, number, text)
    facts = {"passages": len(text.passages), "words": text.words, "bytes": text.size}
    took = round((time.perf_counter() - start) * 1000, 1)
    emit(DocumentIndexed(document=source.name, milliseconds=took, **facts), id=event)
    return text


@app.task(name="demo.write_index")  # type: ignore[untyped-decorator]
def write(done: list[BatchDone], operation: str) -> None:
    """Write the full-text index from the passages in the database."""
    settings = demo_settings()
    store = store_of(settings)
    # The weights are proportional to the durations of the stages.
    with stages(collect=1, index=17, terms=2, stage="index") as parts:
        with parts.stage("collect"):
            passages = store.passages(operation)
        with write_index(index_path(settings, operation)) as draft:
            draft.add(_with_pauses(parts.track("index", passages, unit="passages"), settings.pace / _WRITE_SPEEDUP))
            with parts.stage("terms"):
                terms = draft.terms()
    store.ended(operation, "ready", terms)
    emit(
        IndexReady(
            documents=sum(batch["indexed"] for batch in done),
            failed=sum(batch["failed"] for batch in done),
            passages=len(passages),
            words=sum(batch["words"] for batch in done),
            terms=terms,
        ),
        id=f"{operation}-ready",
    )


def _with_pauses(passages: Iterable[tuple[str, str]], pause: float) -> Iterator[tuple[str, str]]:
    """Yield the passages with a pause before each document."""
    previous = ""
    for document, text in passages:
        if document != previous:
            time.sleep(pause)
        previous = document
        yield document, text

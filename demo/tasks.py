"""The work: a chord of tasks that read documents, and a body that writes the index.

Nothing here mentions users, channels or Redis: the operation travels with the tasks, and ``emit`` finds it.
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
from eventbus.bus import default_bus
from worker_adapter import check_cancelled, install, stages

__all__ = ["TaskFactory", "app", "batch_tasks", "index_path", "indexing", "single_tasks", "store_of"]

# How much less a document takes to be written into the index than to be read.
_WRITE_SPEEDUP: Final = 20


def make_app(settings: DemoSettings) -> Celery:
    """The Celery application. Broker and results are in the bus' own Redis, in another database."""
    app = Celery("demo", broker=settings.broker, backend=settings.broker)
    keys = {"global_keyprefix": f"{settings.prefix}:"}
    app.conf.update(
        task_default_queue="demo",
        broker_transport_options=keys,
        result_backend_transport_options=keys,
        broker_connection_retry_on_startup=True,
        result_expires=3600,
        # What a worker had begun that is gone as a whole comes again; documents and events of it are counted once all
        # the same.
        task_acks_late=True,
        # In workers only: what lets them be killed.
        imports=("demo.fault_injection",),
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    return app


app = make_app(demo_settings())
install(app)


class BatchDone(TypedDict):
    """What a batch hands to the chord's body."""

    indexed: int
    failed: int
    words: int


def store_of(settings: DemoSettings) -> Store:
    """The application's database."""
    return Store(settings.data / "site.sqlite")


def index_path(settings: DemoSettings, operation: str) -> Path:
    """Where the index of an operation is, once it is ready."""
    return settings.data / "indexes" / f"{operation}.sqlite"


TaskFactory = Callable[[str], list[Signature]]
"""The tasks that read the documents of an operation."""


def indexing(operation: str, shape: TaskFactory) -> Signature:
    """The canvas for an operation."""
    return chord(shape(operation), write.s(operation))


def batch_tasks(documents: int, size: int) -> TaskFactory:
    """So many documents in tasks of ``size``: for those that are known to be harmless, and are many."""
    numbers = range(documents)
    cut = [list(numbers[start : start + size]) for start in range(0, documents, size)]
    return lambda operation: [index_batch.s(operation, number, members) for number, members in enumerate(cut, 1)]


def single_tasks(documents: int) -> TaskFactory:
    """Each document in a task of its own: whatever one does to its process, it does to itself alone."""
    return lambda operation: [_file(operation, number) for number in range(documents)]


def _file(operation: str, number: int) -> Signature:
    task = uuid4().hex
    lost = file_lost.si(operation=operation, number=number, task=task)
    return index_file.s(operation, number).set(task_id=task).on_error(lost)


# A batch whose process was killed runs again: by whatever it was killed, it was not these files.
@app.task(name="demo.index_batch", bind=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator] # no types
def index_batch(self: Task, operation: str, batch: int, numbers: Sequence[int]) -> BatchDone:
    """Read, split and tokenise some documents. One that fails is told of, and the next one's turn comes."""
    return _read(self.request.id, operation, batch, numbers)


# Run again, a file that has killed its process would kill the next one, and so on. The default: it has failed.
@app.task(name="demo.index_file", bind=True, reject_on_worker_lost=False)  # type: ignore[untyped-decorator]
def index_file(self: Task, operation: str, number: int) -> BatchDone:
    """The same for a document of which nobody knows what it does."""
    return _read(self.request.id, operation, number + 1, [number])


@app.task(name="demo.file_lost")  # type: ignore[untyped-decorator]
def file_lost(*, operation: str, number: int, task: str) -> None:
    """The task of a document has failed, and could not say so itself."""
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
        # What is done stays; what is not begun is left.
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
    """One document: into the database first, then to the page, so that whoever was told can also ask."""
    settings = demo_settings()
    store = store_of(settings)
    began = time.perf_counter()
    # An id of our own: if the batch has to run again, the page hears of the document once.
    event = f"{operation}-{number}"
    if source.kills:
        # A parser that crashes has worked for a while, so its progress has left.
        default_bus().flush()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        text = read_text(source.path, settings.max_file_bytes)
    except NotText as error:
        store.failed(operation, number, str(error))
        emit(DocumentFailed(document=source.name, reason=str(error)), id=event)
        return None
    time.sleep(max(0.0, settings.pace - (time.perf_counter() - began)))
    store.indexed(operation, number, text)
    facts = {"passages": len(text.passages), "words": text.words, "bytes": text.size}
    took = round((time.perf_counter() - began) * 1000, 1)
    emit(DocumentIndexed(document=source.name, milliseconds=took, **facts), id=event)
    return text


@app.task(name="demo.write_index")  # type: ignore[untyped-decorator]
def write(done: list[BatchDone], operation: str) -> None:
    """Write the full-text index from what the batches have left in the database."""
    settings = demo_settings()
    store = store_of(settings)
    # Weights are about how long they take beside each other.
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
    """With a pause for each document."""
    former = ""
    for document, text in passages:
        if document != former:
            time.sleep(pause)
        former = document
        yield document, text

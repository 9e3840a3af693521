"""The work: a chord of batches, and a body that writes the index.

Nothing here mentions users, channels or Redis: the operation travels with the tasks, and ``emit`` finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from celery import Celery, chord
from celery.canvas import Signature

from demo.events import BatchProgress, DocumentFailed, DocumentIndexed, IndexReady
from demo.index import write_index
from demo.settings import DemoSettings, demo_settings
from demo.store import Source, Store
from demo.text import NotText, Text, read_text
from eventbus import emit
from worker_adapter import install, progress

__all__ = ["app", "index_path", "indexing", "store_of"]


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
        # A batch whose worker was killed runs again; documents and events of it are counted once all the same.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
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


def indexing(operation: str, documents: int, batch: int) -> Signature:
    """The canvas for an operation with so many documents."""
    numbers = range(documents)
    batches = [list(numbers[start : start + batch]) for start in range(0, documents, batch)]
    header = [index_batch.s(operation, number, members) for number, members in enumerate(batches, 1)]
    return chord(header, write.s(operation).on_error(give_up.si(operation)))


@app.task(name="demo.index_batch")  # type: ignore[untyped-decorator] # Celery has no types
def index_batch(operation: str, batch: int, numbers: Sequence[int]) -> BatchDone:
    """Read, split and tokenise some documents. One that fails is told of, and the next one's turn comes."""
    done = BatchDone(indexed=0, failed=0, words=0)
    for position, number in enumerate(numbers):
        source = store_of(demo_settings()).source(operation, number)
        emit(BatchProgress(batch=batch, document=source.name, done=position, total=len(numbers)))
        text = _index(operation, number, source)
        if text is None:
            done["failed"] += 1
        else:
            done["indexed"] += 1
            done["words"] += text.words
    emit(BatchProgress(batch=batch, document="", done=len(numbers), total=len(numbers)))
    return done


def _index(operation: str, number: int, source: Source) -> Text | None:
    """One document: into the database first, then to the page, so that whoever was told can also ask."""
    settings = demo_settings()
    store = store_of(settings)
    began = time.perf_counter()
    # An id of our own: if the batch has to run again, the page hears of the document once.
    event = f"{operation}-{number}"
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
def write(batches: list[BatchDone], operation: str) -> None:
    """Write the full-text index from what the batches have left in the database."""
    settings = demo_settings()
    store = store_of(settings)
    passages = store.passages(operation)
    terms = write_index(index_path(settings, operation), _stepping(passages))
    store.ended(operation, "ready", terms)
    emit(
        IndexReady(
            documents=sum(batch["indexed"] for batch in batches),
            failed=sum(batch["failed"] for batch in batches),
            passages=len(passages),
            words=sum(batch["words"] for batch in batches),
            terms=terms,
        ),
        id=f"{operation}-ready",
    )


def _stepping(passages: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    with progress(total=len(passages), stage="index") as steps:
        for passage in passages:
            yield passage
            steps.step()


@app.task(name="demo.give_up")  # type: ignore[untyped-decorator]
def give_up(operation: str) -> None:
    """Something went wrong that no document is to blame for. The page has heard of it by ``operation.failed``."""
    store_of(demo_settings()).ended(operation, "failed")

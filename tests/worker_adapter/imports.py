"""Prints what is imported in threads of ours; run in a process of its own, where nothing has been used yet."""

import sys
import threading

import worker_adapter.lifecycle.bootstep  # noqa: F401 - what a worker's main process has imported before it forks
from eventbus import BusSettings, configure
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.operations.events import OperationQueued, OperationRef
from eventbus.operations.state import TaskTransition

OPERATION = OperationRef("ann", "imports")


def keep(bus):
    """What the thread of the main process asks."""
    desk, outboxes = Operations(bus.settings), WorkerStatus(bus.settings)
    desk.cancelled(0)
    desk.renew({OPERATION: ["leaf"]}, 1.0)
    desk.cancelled_of([OPERATION])
    outboxes.report("worker", 1, {})
    outboxes.of("worker")
    outboxes.drop("worker", ["1"])


def main():
    "localhost".encode("idna")  # Celery's own connection has done so
    found, ours = [], threading.current_thread()

    def hear(event, arguments):
        if event == "import" and threading.current_thread() is not ours:
            found.append(arguments[0])

    sys.addaudithook(hear)
    bus = configure(BusSettings())
    bus.emit(*OPERATION, OperationQueued(operation="imports", label="", total=1))
    bus.record_transition(OPERATION, TaskTransition("started", "leaf", 1, lease=1000))
    bus.record_transition(OPERATION, TaskTransition("done", "leaf", 1))
    assert bus.flush(5)
    thread = threading.Thread(target=keep, args=(bus,))
    thread.start()
    thread.join()
    sys.stdout.write(" ".join(found))


if __name__ == "__main__":
    main()

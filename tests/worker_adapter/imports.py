"""Prints the imports that happen in our threads. Run in a new process, where nothing has been imported yet."""

import sys
import threading

import worker_adapter.lifecycle.bootstep  # noqa: F401 - what a worker's main process has imported before it forks
from eventbus import BusSettings, configure
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.operations.events import OperationQueued, OperationRef
from eventbus.operations.state import TaskTransition

OPERATION = OperationRef("ann", "imports")


def call(bus):
    """Calls of the thread in the main process."""
    operations, status = Operations(bus.settings), WorkerStatus(bus.settings)
    operations.cancelled(0)
    operations.renew({OPERATION: ["task"]}, 1.0)
    operations.cancelled_of([OPERATION])
    status.report("worker", 1, {})
    status.of("worker")
    status.drop("worker", ["1"])


def main():
    "localhost".encode("idna")  # Celery's own connection has done so
    found, ours = [], threading.current_thread()

    def hear(event, arguments):
        if event == "import" and threading.current_thread() is not ours:
            found.append(arguments[0])

    sys.addaudithook(hear)
    bus = configure(BusSettings())
    bus.emit(*OPERATION, OperationQueued(operation="imports", label="", total=1))
    bus.record_transition(OPERATION, TaskTransition("started", "task", 1, lease=1000))
    bus.record_transition(OPERATION, TaskTransition("done", "task", 1))
    assert bus.flush(5)
    thread = threading.Thread(target=call, args=(bus,))
    thread.start()
    thread.join()
    sys.stdout.write(" ".join(found))


if __name__ == "__main__":
    main()

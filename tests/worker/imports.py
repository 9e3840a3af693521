"""Prints what is imported in threads of ours; run in a process of its own, where nothing has been used yet."""

import sys
import threading

found = []
told = threading.current_thread()


def hear(event, arguments):
    if event == "import" and threading.current_thread() is not told:
        found.append(arguments[0])


def main():
    # As Celery has done it before it forks: the first use of an address.
    "localhost".encode("idna")
    from eventbus import BusSettings, configure
    from eventbus.operation import OperationQueued, OperationRef
    from eventbus.redis.operations import Operations
    from eventbus.redis.outboxes import Outboxes
    from eventbus.tally import Mark
    import worker_adapter.keeper  # noqa: F401

    sys.addaudithook(hear)
    bus = configure(BusSettings())
    operation = OperationRef("ann", "imports")
    bus.emit(*operation, OperationQueued(operation="imports", label="", total=1))
    bus.mark(operation, Mark("started", "leaf", 1, lease=1000))
    bus.mark(operation, Mark("done", "leaf", 1))
    assert bus.flush(5)

    def work():
        desk, outboxes = Operations(bus.settings), Outboxes(bus.settings)
        desk.cancelled(0)
        desk.renew({operation: ["leaf"]}, 1.0)
        desk.cancelled_of([operation])
        outboxes.report("worker", 1, {})
        outboxes.of("worker")
        outboxes.drop("worker", ["1"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print(" ".join(found))


main()

"""The work that an instance does for all instances. Each part runs if the backend implements its port."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from eventbus.backends.pending import PendingStore, SweepStore
from eventbus.operations.store import LeaseStore, OperationStore
from webui_adapter.context import GatewayContext
from webui_adapter.maintenance.broker_control import BrokerControl
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile
from webui_adapter.maintenance.dead_letter_writer import DeadLetterWriter
from webui_adapter.maintenance.lease_checker import LeaseChecker
from webui_adapter.maintenance.sweeper import Sweeper

__all__ = ["Maintenance"]


class Maintenance:
    """The maintenance of one gateway.

    Attributes:
        sweeper: Moves expired pending events to the dead letters; None without a ``SweepStore``.
        dead_letter_writer: Moves undeliverable events to the dead letters; None without a ``PendingStore``.
        broker_control: Revokes cancelled operations through the broker; None without a broker URL.
    """

    def __init__(
        self,
        context: GatewayContext,
        pending_store: PendingStore | None,
        operations: OperationStore | None,
        dead_letter_file: DeadLetterFile | None,
    ) -> None:
        """Make the parts; ``start`` runs them.

        Args:
            context: The gateway's settings, clock and counters.
            pending_store: The pending events; None where there are none.
            operations: The state of operations; None where there are none.
            dead_letter_file: The dead letters on disk, while Redis accepts no writes; None: they are dropped.
        """
        settings, counters = context.settings, context.counters
        interval = settings.sweep_interval
        self.dead_letter_writer: DeadLetterWriter | None = None
        if pending_store is not None:
            self.dead_letter_writer = DeadLetterWriter(
                pending_store, dead_letter_file, settings.dead_waiting, interval, counters
            )
        leases: LeaseChecker | None = None
        if operations is not None and isinstance(operations, LeaseStore):
            leases = LeaseChecker(operations, settings.lease_grace, interval, counters)
        self.sweeper: Sweeper | None = None
        if pending_store is not None and isinstance(pending_store, SweepStore):
            self.sweeper = Sweeper(pending_store, context.instance, interval, settings.sweep_lease, counters, leases)
        self.broker_control = None if settings.broker_url is None else BrokerControl(settings, counters)

    def start(self, spawn: Callable[[Coroutine[object, object, None]], None]) -> None:
        """Run all parts.

        Args:
            spawn: Runs a coroutine in the background.
        """
        for part in (self.sweeper, self.broker_control, self.dead_letter_writer):
            if part is not None:
                spawn(part.run())

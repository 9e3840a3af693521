"""An operation's state machine, its events, and how it is looked up.

The event classes can be imported from here.
"""

from eventbus.operations.events import (
    OperationCancelled,
    OperationCancelling,
    OperationFailed,
    OperationLost,
    OperationProgress,
    OperationQueued,
    OperationRef,
    OperationResumed,
    OperationStarted,
    OperationSucceeded,
    RevokedReason,
    TaskFailed,
    TaskPart,
    TaskProgress,
    TaskRetry,
    TaskRevoked,
    TaskStarted,
    TaskSucceeded,
    current_operation,
)

__all__ = [
    "OperationCancelled",
    "OperationCancelling",
    "OperationFailed",
    "OperationLost",
    "OperationProgress",
    "OperationQueued",
    "OperationRef",
    "OperationResumed",
    "OperationStarted",
    "OperationSucceeded",
    "RevokedReason",
    "TaskFailed",
    "TaskPart",
    "TaskProgress",
    "TaskRetry",
    "TaskRevoked",
    "TaskStarted",
    "TaskSucceeded",
    "current_operation",
]

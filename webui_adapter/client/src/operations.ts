// The types of operations, as the gateway describes them.

/**
 * - `queued`: the tasks are on their way to a worker
 * - `running`: a task has started
 * - `lost`: a worker stopped while it ran a task; the task runs again, or the operation fails
 * - `cancelling`: a user has requested a stop, and some tasks still run
 * - `succeeded`, `failed`, `cancelled`: the operation has ended
 */
export type OperationState = "queued" | "running" | "lost" | "cancelling" | "succeeded" | "failed" | "cancelled";

/** A task of an operation that runs now. */
export interface RunningTask {
  /** The id of the Celery task. */
  readonly task: string;
  /** The name of the Celery task. */
  readonly name: string;
  /** The number of retries so far. */
  readonly retries: number;
  /** Whether the worker of the task has stopped. */
  readonly lost: boolean;
}

/** The state of an operation. Times are milliseconds since 1970 (UTC); 0 means never. */
export interface Operation {
  /** The owner of the operation. */
  readonly user: string;
  readonly id: string;
  /** The name of the operation for people. */
  readonly label: string;
  readonly state: OperationState;
  /** The number of tasks that succeeded. */
  readonly done: number;
  /** The number of tasks that failed. */
  readonly failed: number;
  /** The number of tasks known so far. */
  readonly total: number;
  /** The time when the operation was queued. */
  readonly queued: number;
  /** The time when the first task started. */
  readonly started: number;
  /** The time of the last change. */
  readonly heard: number;
  /** The time of the end. */
  readonly ended: number;
  /** The time of the request to stop it. */
  readonly cancelled: number;
  /** The tasks that run now. Lists of operations do not have it. */
  readonly tasks?: readonly RunningTask[];
}

/** Selects the owner of an operation. */
export interface Whose {
  /** The id of another user. Requires the admin scope. Default: the user of the connection. */
  readonly user?: string;
}

/** Selects operations. */
export interface OperationQuery extends Whose {
  /** The largest number of operations, 1 to 200. Default: 50. */
  readonly limit?: number;
  /** Only operations in this state, or in one of these states. Default: all states. */
  readonly state?: OperationState | readonly OperationState[];
}

"""The send buffer of a process: batching thread, spool, delivery status of receipts."""

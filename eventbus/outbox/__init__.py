"""The worker's send buffer: batching thread, spool, delivery status of receipts."""

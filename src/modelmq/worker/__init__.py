"""The service that runs models: takes requests from its models' lane queues, batches, runs, replies, then acks.

Follow a request through the files in this order: service (connection and consumers), served_queue (one model's two
lane queues), intake (message to work item), batcher, served_version (decide), computing (run, settle), joining,
executor (the child process; its other side is child), outcome (what becomes of it), lane (reply, then ack). Knows no
HTTP.
"""

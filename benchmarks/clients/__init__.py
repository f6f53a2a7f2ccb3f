"""One requester and one echo worker per AMQP client library, all three doing the same work in the same shape.

Each module has `echo` (answer every delivery with its own body) and `ask` (give the driver a function that sends one
request and returns its answer). Single messages are the same to the byte; ModelMQ's requester, as in the gateway, also
joins what is asked in one turn of the loop.
"""

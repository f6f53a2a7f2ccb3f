"""RabbitMQ itself: a private node on this machine, and the management API of any node.

Stands beside the broker client, which moves messages; nothing here does. Services do not use it at run time.
"""

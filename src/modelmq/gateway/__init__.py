"""The service that answers HTTP: Open Inference Protocol V2 in, messages out, replies back.

Follow a request through the files in this order: modelmq.http (bytes to request), api (what is asked), routes,
admission, modelmq.client (the message and its reply), statuses (error to HTTP status). What workers say of their
models is in registry. Knows no AMQP, no tensors and how no model runs.
"""

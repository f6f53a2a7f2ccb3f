"""Everything on one machine: a private RabbitMQ, gateway and workers as one tree of processes.

Starts services as the operating system's processes and imports none of them; what it knows of them is how to start,
hear, drain and end them. `up` is the flow, `steps` its steps, `tree` what keeps services running, `policy` (pure) when
to give up.
"""

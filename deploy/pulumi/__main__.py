"""Everything durable that ML serving needs on RabbitMQ, in one virtual host per stack. See docs/pulumi.md."""

import pulumi

from modelmq.provision import pulumi_stack
from modelmq.provision.pulumi import ServingTopology

stack = pulumi_stack.read()
serving = ServingTopology(
    "serving",
    stack.topology,
    pulumi_stack.provider(stack),
    stack.administrator,
    passwords=stack.config.passwords,
    deletion=pulumi_stack.deletion(stack),
)

# exchange_name, queue_name, routing_key, user_name, vhost, … and, secret, amqp_urls and environment_<service>.
for name, value in pulumi_stack.outputs(stack, serving.passwords).items():
    pulumi.export(name, value)

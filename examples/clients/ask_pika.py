"""Asks a model through RabbitMQ with pika and nothing of ModelMQ.

eval "$(modelmq env)"                               # sets MODELMQ_AMQP_URL and MODELMQ_REPLY_MODE
python ask_pika.py                                  # a handwritten 0 for the demo model "digits"
python ask_pika.py iris examples/models/iris/sample.json
"""

import json
import os
import sys
import time
import uuid

import pika
from pika.exceptions import NackError, UnroutableError

TIMEOUT_S = 10
A_DIGIT = [
    0, 0, 2, 14, 13, 3, 0, 0,
    0, 0, 13, 13, 9, 11, 0, 0,
    0, 0, 16, 7, 0, 12, 0, 0,
    0, 3, 16, 5, 0, 10, 5, 0,
    0, 5, 16, 1, 0, 8, 5, 0,
    0, 3, 16, 1, 0, 10, 5, 0,
    0, 0, 16, 8, 5, 14, 3, 0,
    0, 0, 4, 16, 16, 9, 1, 0,
]  # fmt: skip

model = sys.argv[1] if len(sys.argv) > 1 else "digits"
if len(sys.argv) > 2:
    with open(sys.argv[2], "rb") as file:
        body = file.read()
else:
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": A_DIGIT}]}).encode()

connection = pika.BlockingConnection(pika.URLParameters(os.environ["MODELMQ_AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()  # basic_publish waits until RabbitMQ has the request, or raises

request_id, deadline = str(uuid.uuid4()), time.time() + TIMEOUT_S
answers = []


def on_reply(_channel, _method, properties, reply):
    # After a fault the same reply may come twice, and a late one to an earlier request now: the id tells.
    if properties.correlation_id == request_id and not answers:
        answers.append((properties, reply))


if os.environ.get("MODELMQ_REPLY_MODE") == "queue":  # then replies come through ml-reply-exchange only
    reply_to = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(reply_to, "ml-reply-exchange", reply_to)
else:
    reply_to = "amq.rabbitmq.reply-to"
channel.basic_consume(reply_to, on_reply, auto_ack=True)  # before the first publish
try:
    channel.basic_publish(
        exchange="ml-model-exchange",
        routing_key=model,
        body=body,
        mandatory=True,  # so that a model without a queue is told at once
        properties=pika.BasicProperties(
            content_type="application/json",
            correlation_id=request_id,
            message_id=request_id,
            reply_to=reply_to,
            delivery_mode=2,
            headers={"deadline": int(deadline * 1000)},  # Unix time in ms: after that nobody computes it
        ),
    )
except UnroutableError:
    sys.exit(f"not_found: there is no model {model}")
except NackError:
    sys.exit(f"overloaded: the queue of model {model} is full, ask again later")

while not answers and (left_s := deadline - time.time()) > 0:
    connection.process_data_events(time_limit=left_s)
connection.close()
if not answers:
    sys.exit(f"expired: no answer within {TIMEOUT_S} s")
properties, reply = answers[0]
answer = json.loads(reply)
status = (properties.headers or {}).get("status")
if status is not None:  # an error reply
    sys.exit(f"{status}: {answer['error']}")
for output in answer["outputs"]:
    print(f"{output['name']}: {output['data']}")

// Asks a model through RabbitMQ with amqplib and nothing of ModelMQ.
//
//   eval "$(modelmq env)"       # sets MODELMQ_AMQP_URL and MODELMQ_REPLY_MODE
//   npm install amqplib
//   node ask_node.mjs           # a handwritten 0 for the demo model "digits"
//   node ask_node.mjs iris examples/models/iris/sample.json

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import amqp from "amqplib";

const TIMEOUT_MS = 10_000;
const A_DIGIT = [
  0, 0, 2, 14, 13, 3, 0, 0,
  0, 0, 13, 13, 9, 11, 0, 0,
  0, 0, 16, 7, 0, 12, 0, 0,
  0, 3, 16, 5, 0, 10, 5, 0,
  0, 5, 16, 1, 0, 8, 5, 0,
  0, 3, 16, 1, 0, 10, 5, 0,
  0, 0, 16, 8, 5, 14, 3, 0,
  0, 0, 4, 16, 16, 9, 1, 0,
];

const [model = "digits", file] = process.argv.slice(2);
const body = file
  ? readFileSync(file)
  : Buffer.from(JSON.stringify({ inputs: [{ name: "x", datatype: "FP32", shape: [1, 64], data: A_DIGIT }] }));

const connection = await amqp.connect(process.env.MODELMQ_AMQP_URL);
const channel = await connection.createConfirmChannel();
const id = randomUUID();

let replyTo = "amq.rabbitmq.reply-to";
if (process.env.MODELMQ_REPLY_MODE === "queue") { // then replies come through ml-reply-exchange only
  ({ queue: replyTo } = await channel.assertQueue("", { exclusive: true }));
  await channel.bindQueue(replyTo, "ml-reply-exchange", replyTo);
}

const answer = new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error("expired: no answer in time")), TIMEOUT_MS).unref();
  channel.on("return", () => reject(new Error(`not_found: there is no model ${model}`)));
  const onReply = (reply) => {
    // After a fault the same reply may come twice: the id tells, and a promise settles once.
    if (reply.properties.correlationId !== id) return;
    const content = JSON.parse(reply.content.toString());
    const status = reply.properties.headers?.status;
    if (status) reject(new Error(`${status}: ${content.error}`)); // an error reply
    else resolve(content);
  };
  channel
    .consume(replyTo, onReply, { noAck: true }) // before the first publish
    .then(() => {
      const properties = {
        contentType: "application/json",
        correlationId: id,
        messageId: id,
        replyTo,
        persistent: true,
        mandatory: true, // so that a model without a queue is told at once
        headers: { deadline: Date.now() + TIMEOUT_MS }, // Unix time in ms: after that nobody computes it
      };
      channel.publish("ml-model-exchange", model, body, properties, (refused) => {
        if (refused) reject(new Error(`overloaded: the queue of model ${model} is full, ask again later`));
      });
    })
    .catch(reject);
});

try {
  for (const output of (await answer).outputs) console.log(`${output.name}: ${JSON.stringify(output.data)}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await connection.close();
}

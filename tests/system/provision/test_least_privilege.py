"""What each service's user may do on a real broker, tried with somebody else's AMQP client, and what it may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.errors import ProvisionError
from modelmq.provision import provision
from modelmq.settings import Settings, TopologySettings
from modelmq.topology import ModelRoute, user_name

pytestmark = pytest.mark.broker
DIRECT = "amq.rabbitmq.reply-to"
LANES = ("ml-model.digits.interactive", "ml-model.digits.bulk")
OTHERS = ("ml-model.fraud.interactive", "ml-model.fraud.bulk")
LETTERS = ("ml-dead-letter.digits", "ml-expired", "ml-unrouted")
EXCHANGES = (
    "ml-model-exchange", "ml-control-exchange", "ml-reply-exchange", "ml-redeliver-exchange",
    "ml-dead-letter-sorting-exchange", "ml-dead-letter-exchange", "ml-unrouted-exchange", "amq.topic", "",
)  # fmt: skip
Doing = Callable[[BlockingChannel], object]
Login = Callable[..., pika.BlockingConnection]


@pytest.fixture
def login(settings: Settings, node: RunningNode, admin: Management) -> Iterator[Login]:
    """A connection as one of the users that a provisioner made."""
    roles = {"vision": ("digits",), "money": ("fraud",)}
    environment = settings.topology.environment
    made = Settings(
        broker=settings.broker,
        state_dir=settings.state_dir,
        topology=TopologySettings(environment=environment, roles=roles),
    )
    provision(made, (ModelRoute("digits", ("1",)), ModelRoute("fraud")), admin)
    open_ones: list[pika.BlockingConnection] = []

    def connect(service: str, role: str = "vision", vhost: str = settings.broker.vhost) -> pika.BlockingConnection:
        user = user_name(service, environment, role)
        credentials = pika.PlainCredentials(user, read_secret("", secret_file(settings.state_dir, user)))
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.amqp_port, vhost, credentials))
        open_ones.append(connection)
        return connection

    yield connect
    for connection in open_ones:
        connection.close()


def allowed(connection: pika.BlockingConnection, doing: Doing) -> bool:
    """Tried on a channel of its own, which a refusal closes."""
    channel = connection.channel()
    try:
        doing(channel)
    except ChannelClosedByBroker as error:
        if error.reply_code != 403:
            raise
        return False
    channel.close()
    return True


def publish(exchange: str, key: str = "digits") -> Doing:
    def doing(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"{}")

    return doing


def published_to(connection: pika.BlockingConnection) -> set[str]:
    return {exchange for exchange in EXCHANGES if allowed(connection, publish(exchange))}


def consume(queue: str, *, no_ack: bool = False) -> Doing:
    return lambda channel: channel.basic_consume(queue, lambda *_: None, auto_ack=no_ack)


def consumed(connection: pika.BlockingConnection) -> set[str]:
    return {queue for queue in (*LANES, *OTHERS, *LETTERS) if allowed(connection, consume(queue))}


def assert_changes_nothing_that_lasts(connection: pika.BlockingConnection) -> None:
    refused: list[Doing] = [
        lambda channel: channel.queue_declare("mine", durable=True),
        lambda channel: channel.queue_declare("mine", exclusive=True),
        lambda channel: channel.queue_declare("ml-model.new.bulk", durable=True),
        lambda channel: channel.queue_delete(LANES[0]),
        lambda channel: channel.exchange_declare("mine", "topic", durable=True),
        lambda channel: channel.exchange_delete("ml-model-exchange"),
        lambda channel: channel.queue_bind(LANES[0], "ml-model-exchange", "fraud"),
        lambda channel: channel.queue_unbind(LANES[0], "ml-model-exchange", "digits"),
    ]
    assert [allowed(connection, doing) for doing in refused] == [False] * len(refused)


def ask(connection: pika.BlockingConnection, answers: list[bytes]) -> None:
    channel = connection.channel()
    channel.basic_consume(DIRECT, lambda _channel, _method, _properties, body: answers.append(body), auto_ack=True)
    channel.basic_publish("ml-model-exchange", "digits", b"question", pika.BasicProperties(reply_to=DIRECT))


def test_a_gateway_asks_and_hears_and_nothing_else(login: Login) -> None:
    gateway = login("gateway")
    assert allowed(gateway, consume(DIRECT, no_ack=True))
    assert published_to(gateway) == {"ml-model-exchange", "ml-control-exchange"}
    assert consumed(gateway) == set()
    assert_changes_nothing_that_lasts(gateway)
    assert not allowed(gateway, lambda channel: channel.queue_declare("", exclusive=True))
    assert not allowed(gateway, lambda channel: channel.queue_purge(LANES[0]))


def test_a_worker_reads_its_models_and_answers(login: Login) -> None:
    worker = login("worker")
    assert consumed(worker) == set(LANES)
    assert published_to(worker) == {"", "ml-dead-letter-exchange"}
    assert_changes_nothing_that_lasts(worker)

    def own_queue(channel: BlockingChannel) -> None:
        channel.queue_declare("ml-worker.vision.w1", exclusive=True)
        channel.queue_bind("ml-worker.vision.w1", "ml-control-exchange")
        channel.basic_consume("ml-worker.vision.w1", lambda *_: None)

    assert allowed(worker, own_queue)
    assert not allowed(worker, lambda channel: channel.queue_declare("ml-worker.money.w1", exclusive=True))
    assert not allowed(worker, lambda channel: channel.queue_declare("ml-worker.visionary", exclusive=True))

    def spy(channel: BlockingChannel) -> None:
        channel.queue_declare("ml-worker.vision.w2", exclusive=True)
        channel.queue_bind("ml-worker.vision.w2", "ml-model-exchange", "fraud")

    assert not allowed(worker, spy)
    assert consumed(login("worker", "money")) == set(OTHERS)


def test_a_client_asks_and_is_answered_and_nothing_else(login: Login) -> None:
    client, worker = login("client"), login("worker").channel()
    answers: list[bytes] = []
    ask(client, answers)
    method, properties, body = next(worker.consume(LANES[0], inactivity_timeout=20))
    assert body == b"question"
    worker.basic_publish("", properties.reply_to, b"answer")
    worker.basic_ack(method.delivery_tag)
    client.process_data_events(time_limit=20)
    assert answers == [b"answer"]
    worker.cancel()

    assert published_to(client) == {"ml-model-exchange"}
    assert consumed(client) == set()
    assert_changes_nothing_that_lasts(client)

    def rpc_queue(channel: BlockingChannel) -> None:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_consume(queue, lambda *_: None)

    assert allowed(client, rpc_queue)

    def spy(channel: BlockingChannel) -> None:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "ml-model-exchange", "digits")

    assert not allowed(client, spy)


def test_an_operator_looks_at_dead_letters_and_redelivers(login: Login) -> None:
    operator = login("operator")
    assert consumed(operator) == set(LETTERS)
    assert published_to(operator) == {"ml-redeliver-exchange"}
    assert_changes_nothing_that_lasts(operator)


@pytest.mark.parametrize("service", ["gateway", "worker", "client", "operator"])
def test_nobody_sees_another_virtual_host(login: Login, service: str) -> None:
    with pytest.raises(
        (ProbableAccessDeniedError, ProbableAuthenticationError, pika.exceptions.ConnectionClosedByBroker)
    ):
        login(service, vhost="/")


def test_only_the_operator_may_look_at_the_management_api(login: Login, settings: Settings, node: RunningNode) -> None:
    login("gateway")
    environment, vhost = settings.topology.environment, settings.broker.vhost
    for service in ("gateway", "client", "worker"):
        user = user_name(service, environment, "vision")
        secret = read_secret("", secret_file(settings.state_dir, user))
        with Management(node.management_url, user, secret) as management, pytest.raises(ProvisionError):
            management.overview()
    user = user_name("operator", environment)
    with Management(node.management_url, user, read_secret("", secret_file(settings.state_dir, user))) as management:
        assert management.overview().rabbitmq_version == node.version
        assert {queue.name for queue in management.queues(vhost)} >= set(LANES)
        management.connections(vhost)
        with pytest.raises(ProvisionError, match=f'the user "{user}" lacks the tag "administrator"'):
            management.put_vhost("other", "")
        with pytest.raises(ProvisionError):
            management.users()

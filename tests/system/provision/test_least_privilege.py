"""What each service's user needs for its work on a real broker; all that it may and may not is in test_rights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.client.api import Client
from modelmq.errors import Expired, ProvisionError
from modelmq.provision import provision
from modelmq.settings import Settings, TopologySettings
from modelmq.topology_names import ModelRoute, user_name

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]
DIRECT = "amq.rabbitmq.reply-to"
LANES = ("ml-model.digits.interactive", "ml-model.digits.bulk")
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
        credentials = pika.PlainCredentials(user, read_secret("", secret_file(settings.state_dir, user)).password)
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


def consume(queue: str, *, no_ack: bool = False) -> Doing:
    return lambda channel: channel.basic_consume(queue, lambda *_: None, auto_ack=no_ack)


def ask(connection: pika.BlockingConnection, answers: list[bytes]) -> None:
    channel = connection.channel()
    channel.basic_consume(DIRECT, lambda _channel, _method, _properties, body: answers.append(body), auto_ack=True)
    channel.basic_publish("ml-model-exchange", "digits", b"question", pika.BasicProperties(reply_to=DIRECT))


def test_a_gateway_hears_direct_replies(login: Login) -> None:
    assert allowed(login("gateway"), consume(DIRECT, no_ack=True))


def test_a_worker_hears_what_is_told_to_all(login: Login) -> None:
    def own_queue(channel: BlockingChannel) -> None:
        channel.queue_declare("ml-worker.vision.w1", exclusive=True, auto_delete=True)
        channel.queue_bind("ml-worker.vision.w1", "ml-control-exchange")
        channel.basic_consume("ml-worker.vision.w1", lambda *_: None)

    assert allowed(login("worker"), own_queue)


def test_a_client_asks_and_is_answered(login: Login) -> None:
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


def test_a_client_withdraws_what_it_asked_and_so_does_the_python_client(
    login: Login, settings: Settings, node: RunningNode
) -> None:
    """With pika on the channel of the request; with ours by another, for which it finds out its address."""
    worker = login("worker").channel()
    worker.queue_declare("ml-worker.vision.w1", exclusive=True)
    worker.queue_bind("ml-worker.vision.w1", "ml-control-exchange")

    def next_of(queue: str) -> pika.BasicProperties:
        method, properties, _ = next(worker.consume(queue, inactivity_timeout=20))
        worker.basic_ack(method.delivery_tag)
        worker.cancel()
        return properties

    client = login("client").channel()
    client.basic_consume(DIRECT, lambda *_: None, auto_ack=True)
    asked = pika.BasicProperties(reply_to=DIRECT, correlation_id="mine")
    client.basic_publish("ml-model-exchange", "digits", b"question", asked)
    withdrawn = pika.BasicProperties(type="cancel", reply_to=DIRECT, correlation_id="mine")
    client.basic_publish("ml-control-exchange", "", b"", withdrawn)
    request, cancel = next_of(LANES[0]), next_of("ml-worker.vision.w1")
    assert request.reply_to.startswith(f"{DIRECT}.")
    assert (cancel.type, cancel.reply_to, cancel.correlation_id) == ("cancel", request.reply_to, "mine")

    user = user_name("client", settings.topology.environment)
    secret = read_secret("", secret_file(settings.state_dir, user)).password

    async def ask_and_give_up() -> None:
        url = f"amqp://{user}:{secret}@127.0.0.1:{node.amqp_port}/{settings.broker.vhost}"
        async with Client(url) as own:
            with pytest.raises(Expired):
                await own.infer_json("digits", b"{}", timeout_s=0.1)

    asyncio.run(ask_and_give_up())
    request, cancel = next_of(LANES[0]), next_of("ml-worker.vision.w1")
    assert cancel.type == "cancel"
    assert (cancel.reply_to, cancel.correlation_id) == (request.reply_to, request.correlation_id)


def test_a_client_cannot_touch_the_reply_queue_of_another(login: Login) -> None:
    owner, other = login("client"), login("client")
    queue = owner.channel().queue_declare("", exclusive=True).method.queue
    for doing in (
        consume(queue),
        lambda channel: channel.queue_purge(queue),
        lambda channel: channel.queue_delete(queue),
    ):
        with pytest.raises(ChannelClosedByBroker, match="RESOURCE_LOCKED"):
            doing(other.channel())


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
        secret = read_secret("", secret_file(settings.state_dir, user)).password
        with Management(node.management_url, user, secret) as management, pytest.raises(ProvisionError):
            management.overview()
    user = user_name("operator", environment)
    with Management(
        node.management_url, user, read_secret("", secret_file(settings.state_dir, user)).password
    ) as management:
        assert management.overview().rabbitmq_version == node.version
        assert {queue.name for queue in management.queues(vhost)} >= set(LANES)
        management.connections(vhost)
        with pytest.raises(ProvisionError, match=f'the user "{user}" lacks the tag "administrator"'):
            management.put_vhost("other", "")
        with pytest.raises(ProvisionError):
            management.users()

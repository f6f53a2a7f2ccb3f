"""`ServingTopology`: the topology as a Pulumi component, one resource per object, for programs like deploy/pulumi.

Reads the same value as `modelmq topology apply`, so both make the same broker. Queues and the virtual host are
protected; those that the stack names may go, once they are empty. Needs the extra "pulumi".
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import pulumi
import pulumi_rabbitmq as rabbitmq
from pulumi import Input, Output, ResourceOptions

from modelmq.provision import pulumi_values as values
from modelmq.provision.pulumi_deletion import NO_DELETION, Deletion
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User

_TYPE = "modelmq:index:ServingTopology"
_PASSWORD_BYTES = 32


class ServingTopology(pulumi.ComponentResource):
    """Everything durable that ML serving needs in one virtual host.

    `provider` is the administrator's access, `administrator` its user. `passwords` are those of users that have been
    given one, by name; the others get one made, kept in the stack's state, encrypted. Queues and the virtual host are
    protected but for what `deletion` allows.
    """

    vhost: Output[str]
    passwords: Mapping[str, Output[str]]
    """Of every user, secret."""

    def __init__(
        self,
        name: str,
        topology: Topology,
        provider: rabbitmq.Provider,
        administrator: str,
        *,
        passwords: Mapping[str, Input[str]] | None = None,
        deletion: Deletion = NO_DELETION,
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__(_TYPE, name, None, opts)
        self._provider = provider
        self._deletion = deletion
        self._vhost = rabbitmq.VHost(
            topology.vhost.name, name=topology.vhost.name, opts=self._guarded(topology.vhost.name)
        )
        self.vhost = self._vhost.name
        given = passwords or {}
        self.passwords = {user.name: self._password(user.name, given.get(user.name)) for user in topology.users}
        # What the creator of a virtual host gets by itself; an administrator who did not create it would have nothing.
        admin = self._permission(Permission(administrator, ".*", ".*", ".*"), administrator)
        users = {user.name: self._user(user) for user in topology.users}
        for each in topology.permissions:
            self._permission(each, users[each.user].name)
        # Before the queues, so that their limits hold from the first message on; on the way back, after them.
        policies = [self._policy(each, after=[admin]) for each in topology.policies]
        exchanges = {each.name: self._exchange(each, after=[admin]) for each in topology.exchanges}
        queues = {each.name: self._queue(each, after=[admin, *policies]) for each in topology.queues}
        for binding in topology.bindings:
            self._binding(binding, exchanges[binding.source], queues[binding.destination])
        self.register_outputs({"vhost": self.vhost})

    def _options(self, after: Collection[pulumi.Resource] = ()) -> ResourceOptions:
        return ResourceOptions(parent=self, provider=self._provider, depends_on=list(after))

    def _guarded(self, name: str, after: Collection[pulumi.Resource] = ()) -> ResourceOptions:
        """Of what holds messages."""
        guard = ResourceOptions(protect=name not in self._deletion.allowed, hooks=self._deletion.hooks)
        return ResourceOptions.merge(self._options(after), guard)

    def _password(self, user: str, given: Input[str] | None) -> Output[str]:
        if given is not None:
            return Output.secret(given)
        # A new one is made at every run, and only the first is kept.
        made = pulumi.Stash(
            f"{user}-password",
            input=Output.secret(secrets.token_urlsafe(_PASSWORD_BYTES)),
            opts=ResourceOptions(parent=self, ignore_changes=["input"]),
        )
        return Output.secret(made.output)

    def _user(self, user: User) -> rabbitmq.User:
        password, tags = self.passwords[user.name], list(user.tags)
        return rabbitmq.User(user.name, name=user.name, password=password, tags=tags, opts=self._options())

    def _permission(self, permission: Permission, user: Input[str]) -> rabbitmq.Permissions:
        rights = rabbitmq.PermissionsPermissionsArgs(**values.rights(permission))
        return rabbitmq.Permissions(
            permission.user, user=user, vhost=self.vhost, permissions=rights, opts=self._options()
        )

    def _policy(self, policy: Policy, after: Collection[pulumi.Resource]) -> rabbitmq.Policy:
        settings = rabbitmq.PolicyPolicyArgs(**values.policy_settings(policy))
        return rabbitmq.Policy(
            policy.name, name=policy.name, vhost=self.vhost, policy=settings, opts=self._options(after)
        )

    def _exchange(self, exchange: Exchange, after: Collection[pulumi.Resource]) -> rabbitmq.Exchange:
        settings = rabbitmq.ExchangeSettingsArgs(**values.exchange_settings(exchange))
        return rabbitmq.Exchange(
            exchange.name, name=exchange.name, vhost=self.vhost, settings=settings, opts=self._options(after)
        )

    def _queue(self, queue: Queue, after: Collection[pulumi.Resource]) -> rabbitmq.Queue:
        settings = rabbitmq.QueueSettingsArgs(**values.queue_settings(queue))
        return rabbitmq.Queue(
            queue.name, name=queue.name, vhost=self.vhost, settings=settings, opts=self._guarded(queue.name, after)
        )

    def _binding(self, binding: Binding, source: rabbitmq.Exchange, destination: rabbitmq.Queue) -> None:
        rabbitmq.Binding(
            values.binding_name(binding),
            source=source.name,
            # The queue's own output: a queue that is replaced takes its bindings with it.
            destination=destination.name,
            destination_type="queue",
            vhost=self.vhost,
            routing_key=binding.routing_key,
            arguments_json=values.binding_arguments(binding),
            opts=ResourceOptions.merge(self._options(), ResourceOptions(hooks=self._deletion.hooks)),
        )

"""`ServingTopology`: the topology as a Pulumi component, one resource per object, for programs like deploy/pulumi.

Reads the same value as `modelmq topology apply`, so both make the same broker. Queues and the virtual host are
protected; those that the stack names may go, once they are empty. Needs the extra "pulumi".
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_rabbitmq as rabbitmq
from pulumi import Input, Output, Resource, ResourceHookBinding, ResourceOptions

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
        self.vhost = self._virtual_host(topology.vhost.name).name
        given = passwords or {}
        self.passwords = {user.name: self._password(user.name, given.get(user.name)) for user in topology.users}
        # What the creator of a virtual host gets by itself; an administrator who did not create it would have nothing.
        admin = self._permission(Permission(administrator, ".*", ".*", ".*"), administrator)
        users = {user.name: self._user(user) for user in topology.users}
        permissions = [self._permission(each, users[each.user].name) for each in topology.permissions]
        # Before the queues, so that their limits hold from the first message on; on the way back, after them.
        policies = [self._policy(each, after=[admin]) for each in topology.policies]
        exchanges = {each.name: self._exchange(each, after=[admin]) for each in topology.exchanges}
        queues = {each.name: self._queue(each, after=[admin, *policies]) for each in topology.queues}
        bindings = [self._binding(each, exchanges[each.source], queues[each.destination]) for each in topology.bindings]
        self._guard(name, topology, after=[*permissions, *exchanges.values(), *queues.values(), *bindings])
        self.register_outputs({"vhost": self.vhost})

    def _options(
        self, after: Sequence[Resource] = (), protect: str = "", hooks: ResourceHookBinding | None = None
    ) -> ResourceOptions:
        return ResourceOptions(
            parent=self,
            provider=self._provider,
            depends_on=list(after),
            protect=bool(protect) and protect not in self._deletion.allowed,
            hooks=hooks,
        )

    def _virtual_host(self, name: str) -> rabbitmq.VHost:
        return rabbitmq.VHost(name, name=name, opts=self._options(protect=name, hooks=self._deletion.vhost))

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

    def _policy(self, policy: Policy, after: Sequence[Resource]) -> rabbitmq.Policy:
        settings = rabbitmq.PolicyPolicyArgs(**values.policy_settings(policy))
        return rabbitmq.Policy(
            policy.name, name=policy.name, vhost=self.vhost, policy=settings, opts=self._options(after)
        )

    def _exchange(self, exchange: Exchange, after: Sequence[Resource]) -> rabbitmq.Exchange:
        settings = rabbitmq.ExchangeSettingsArgs(**values.exchange_settings(exchange))
        return rabbitmq.Exchange(
            exchange.name, name=exchange.name, vhost=self.vhost, settings=settings, opts=self._options(after)
        )

    def _queue(self, queue: Queue, after: Sequence[Resource]) -> rabbitmq.Queue:
        settings = rabbitmq.QueueSettingsArgs(**values.queue_settings(queue))
        options = self._options(after, protect=queue.name, hooks=self._deletion.queue)
        return rabbitmq.Queue(queue.name, name=queue.name, vhost=self.vhost, settings=settings, opts=options)

    def _binding(self, binding: Binding, source: rabbitmq.Exchange, destination: rabbitmq.Queue) -> rabbitmq.Binding:
        return rabbitmq.Binding(
            values.binding_name(binding),
            source=source.name,
            # The queue's own output: a queue that is replaced takes its bindings with it.
            destination=destination.name,
            destination_type="queue",
            vhost=self.vhost,
            routing_key=binding.routing_key,
            arguments_json=values.binding_arguments(binding),
            opts=self._options(hooks=self._deletion.first),
        )

    def _guard(self, name: str, topology: Topology, after: Sequence[Resource]) -> None:
        """Stands on everything else, so a destroy that may not be ends here, before it took a binding or a user."""
        whole = {topology.vhost.name, *(queue.name for queue in topology.queues)}
        opts = ResourceOptions(
            parent=self,
            depends_on=list(after),
            protect=not whole <= self._deletion.allowed,
            hooks=self._deletion.first,
        )
        pulumi.Stash(f"{name}-guard", input=topology.vhost.name, opts=opts)

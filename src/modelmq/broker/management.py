"""RabbitMQ's management HTTP API as typed calls: lists of what is there, and puts of single objects.

The provisioner and `status` use it; no service does at run time. Every call may be repeated without harm, every
failure is a ProvisionError of one sentence. Does not know what ought to be there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from modelmq.broker.management_errors import answer_error, is_missing, transport_error, unreadable_answer
from modelmq.broker.management_values import (
    BindingInfo,
    ConnectionInfo,
    ExchangeInfo,
    FeatureFlag,
    GlobalParameter,
    Overview,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    QueueTotals,
    UserInfo,
    VhostInfo,
    WhoAmI,
)
from modelmq.broker.secrets import read_secret
from modelmq.errors import ConfigError
from modelmq.settings import BrokerSettings
from modelmq.tls import TlsOptions, client_context, trusting_nobody

T = TypeVar("T")

# An idle connection may be closed by the broker just as we reuse it; every call is safe to repeat once.
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_LONGEST_BYTES = 2**28
"""Of an answer; ten thousand queues are a few megabytes."""


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Management:
    """One broker's management API as one user. Safe to use from several threads; close it, or use `with`."""

    def __init__(
        self, url: str, username: str, password: str, *, tls: TlsOptions | None = None, timeout_s: float = 15.0
    ) -> None:
        """`tls` counts for https:// addresses. Raises ConfigError for files that cannot be used."""
        self.url = url.rstrip("/")
        self.username = username
        # Proxies and .netrc of the environment are left aside: an administrator's password goes to this address only.
        self._timeout_s = timeout_s
        self._tls = tls or TlsOptions()
        self._http = httpx.Client(
            base_url=self.url + "/api/",
            auth=httpx.BasicAuth(username, password),
            timeout=timeout_s,
            verify=client_context(self._tls) if self.url.startswith("https:") else trusting_nobody(),
            trust_env=False,
        )

    def __enter__(self) -> Management:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._http.close()

    def overview(self) -> Overview:
        """Version and names of the broker."""
        return self._get(Overview, "read the overview", "overview")

    def whoami(self) -> WhoAmI:
        """The user this client acts as."""
        return self._get(WhoAmI, "tell who we are", "whoami")

    def feature_flags(self) -> tuple[FeatureFlag, ...]:
        """All that this version knows of."""
        return self._get(tuple[FeatureFlag, ...], "list the feature flags", "feature-flags")

    def vhosts(self) -> tuple[VhostInfo, ...]:
        """All of the broker."""
        return self._get(tuple[VhostInfo, ...], "list the virtual hosts", "vhosts")

    def users(self) -> tuple[UserInfo, ...]:
        """All of the broker, with password hashes where this version shows them in the list or in its definitions."""
        users = self._get(tuple[UserInfo, ...], "list the users", "users")
        if any(user.password_hash for user in users):
            return users
        return self._get(_Definitions, "export the definitions", "definitions").users or users

    def permissions(self, vhost: str) -> tuple[PermissionInfo, ...]:
        """Everybody's rights in a virtual host."""
        return self._get(tuple[PermissionInfo, ...], "list the permissions", "vhosts", vhost, "permissions")

    def all_permissions(self) -> tuple[PermissionInfo, ...]:
        """Everybody's rights everywhere."""
        return self._get(tuple[PermissionInfo, ...], "list the permissions", "permissions")

    def global_parameter(self, name: str) -> object | None:
        """Its value, or None where there is none of this name."""
        doing = f"read the global parameter {name}"
        answer = self._send("GET", doing, None, "global-parameters", name, missing_ok=True)
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        found = self._decoded(GlobalParameter, answer, doing)
        value: object = found.value
        return value

    def exchanges(self, vhost: str) -> tuple[ExchangeInfo, ...]:
        """All of a virtual host, the predeclared included."""
        return self._get(tuple[ExchangeInfo, ...], "list the exchanges", "exchanges", vhost)

    def queues(self, vhost: str) -> tuple[QueueInfo, ...]:
        """All of a virtual host with their depths."""
        columns = ",".join(QueueInfo.__struct_fields__)
        return self._get(tuple[QueueInfo, ...], "list the queues", "queues", vhost, query={"columns": columns})

    def queue_totals(self, vhost: str) -> tuple[QueueTotals, ...]:
        """Depths that are younger than those of `queues`: at most 5 s old, and of classic queues as they are now."""
        query = {"disable_stats": "true", "enable_queue_totals": "true"}
        return self._get(tuple[QueueTotals, ...], "list the depths of queues", "queues", vhost, query=query)

    def bindings(self, vhost: str) -> tuple[BindingInfo, ...]:
        """All of a virtual host."""
        return self._get(tuple[BindingInfo, ...], "list the bindings", "bindings", vhost)

    def policies(self, vhost: str) -> tuple[PolicyInfo, ...]:
        """All of a virtual host."""
        return self._get(tuple[PolicyInfo, ...], "list the policies", "policies", vhost)

    def connections(self, vhost: str) -> tuple[ConnectionInfo, ...]:
        """Open connections to a virtual host."""
        return self._get(tuple[ConnectionInfo, ...], "list the connections", "vhosts", vhost, "connections")

    def connections_of(self, user: str) -> tuple[ConnectionInfo, ...]:
        """A user's open connections to whatever virtual host; unlike other lists, this one is not some seconds old."""
        doing = f"list the connections of {user}"
        return self._get(tuple[ConnectionInfo, ...], doing, "connections", "username", user)

    def put_vhost(self, vhost: str, description: str) -> None:
        """Creates it, and gives this client's user all rights in it."""
        self._send("PUT", f"create the virtual host {vhost}", {"description": description}, "vhosts", vhost)

    def put_user(self, user: str, password_hash: str, tags: tuple[str, ...]) -> None:
        """Creates it, or sets its password and tags. `password_hash` is a salted SHA-256 as RabbitMQ stores it."""
        body = {
            "password_hash": password_hash,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ",".join(tags),
        }
        # Of two who create a user at one time RabbitMQ answers one with a bare 400; by then there is a user to set.
        self._send("PUT", f"write the user {user}", body, "users", user, again_on=httpx.codes.BAD_REQUEST)

    def put_permission(self, vhost: str, permission: PermissionInfo) -> None:
        """Replaces the user's rights in the virtual host."""
        body = {"configure": permission.configure, "write": permission.write, "read": permission.read}
        doing = f"write the permissions of {permission.user}"
        self._send("PUT", doing, body, "permissions", vhost, permission.user)

    def put_exchange(self, vhost: str, name: str, kind: str) -> None:
        """Declares a durable exchange."""
        body = {"type": kind, "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
        self._send("PUT", f"declare the exchange {name}", body, "exchanges", vhost, name)

    def put_queue(self, vhost: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Declares a durable queue."""
        body = {"durable": True, "auto_delete": False, "arguments": dict(arguments)}
        self._send("PUT", f"declare the queue {name}", body, "queues", vhost, name)

    def add_binding(self, vhost: str, binding: BindingInfo) -> None:
        """Binds; a binding that is there already stays single."""
        body = {"routing_key": binding.routing_key, "arguments": binding.arguments}
        kind = "q" if binding.destination_type == "queue" else "e"
        doing = f"bind {binding.destination} to {binding.source}"
        self._send("POST", doing, body, "bindings", vhost, "e", binding.source, kind, binding.destination)

    def put_policy(self, vhost: str, policy: PolicyInfo) -> None:
        """Writes a policy; it takes effect on all queues or exchanges that match."""
        body = {
            "pattern": policy.pattern,
            "definition": policy.definition,
            "priority": policy.priority,
            "apply-to": policy.apply_to,
        }
        self._send("PUT", f"write the policy {policy.name}", body, "policies", vhost, policy.name)

    def put_global_parameter(self, name: str, value: object) -> None:
        """Writes a named value that the broker keeps for us."""
        body = {"name": name, "value": value}
        self._send("PUT", f"write the global parameter {name}", body, "global-parameters", name)

    def delete_vhost(self, vhost: str) -> None:
        """With everything in it. What is gone already is fine, here and in all that follow."""
        self._delete(f"delete the virtual host {vhost}", "vhosts", vhost)

    def delete_user(self, user: str) -> None:
        """Ends its connections, too."""
        self._delete(f"delete the user {user}", "users", user)

    def delete_permission(self, vhost: str, user: str) -> None:
        """All of the user's rights in the virtual host."""
        self._delete(f"delete the permissions of {user}", "permissions", vhost, user)

    def delete_policy(self, vhost: str, name: str) -> None:
        """What it ruled falls to the next policy that matches."""
        self._delete(f"delete the policy {name}", "policies", vhost, name)

    def delete_exchange(self, vhost: str, name: str) -> None:
        """With all bindings from it and to it."""
        self._delete(f"delete the exchange {name}", "exchanges", vhost, name)

    def delete_queue(self, vhost: str, name: str) -> None:
        """With all its messages and bindings."""
        self._delete(f"delete the queue {name}", "queues", vhost, name)

    def delete_unused_queue(self, vhost: str, name: str) -> bool:
        """A classic queue, unless it has messages that are ready, or consumers; False then."""
        query = {"if-empty": "true", "if-unused": "true"}
        answer = self._attempt("DELETE", _path("queues", vhost, name), None, query)
        if answer.status == httpx.codes.BAD_REQUEST:
            return False
        if not httpx.codes.is_success(answer.status) and not is_missing(answer.status, answer.body):
            raise answer_error(self.url, self.username, f"delete the queue {name}", answer.status, answer.body)
        return True

    def delete_binding(self, vhost: str, binding: BindingInfo) -> None:
        """Needs the binding as it was listed, with the key that RabbitMQ made of its properties."""
        kind = "q" if binding.destination_type == "queue" else "e"
        doing = f"unbind {binding.destination} from {binding.source}"
        path = ("bindings", vhost, "e", binding.source, kind, binding.destination, binding.properties_key)
        self._delete(doing, *path)

    def delete_global_parameter(self, name: str) -> None:
        """Forgets the value."""
        self._delete(f"delete the global parameter {name}", "global-parameters", name)

    def _delete(self, doing: str, *path: str) -> None:
        self._send("DELETE", doing, None, *path, missing_ok=True)

    def _get(self, kind: type[T], doing: str, *path: str, query: Mapping[str, str] | None = None) -> T:
        return self._decoded(kind, self._send("GET", doing, None, *path, query=query), doing)

    def _decoded(self, kind: type[T], answer: Answer, doing: str) -> T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreadable_answer(self.url, doing) from error

    def _send(
        self,
        method: str,
        doing: str,
        body: object,
        *path: str,
        again_on: int = 0,
        query: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        url = _path(*path)
        content = None if body is None else msgspec.json.encode(body)
        answer = self._attempt(method, url, content, query or {})
        if answer.status == again_on:
            answer = self._attempt(method, url, content, query or {})
        if missing_ok and is_missing(answer.status, answer.body):
            return answer
        if not httpx.codes.is_success(answer.status):
            raise answer_error(self.url, self.username, doing, answer.status, answer.body)
        return answer

    def _attempt(self, method: str, url: str, content: bytes | None, query: Mapping[str, str]) -> Answer:
        for last in (False, True):
            try:
                return self._exchange(method, url, content, query)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if last or not isinstance(error, _BROKEN):
                    raise transport_error(self.url, error, self._tls) from error
        raise AssertionError("unreachable")

    def _exchange(self, method: str, url: str, content: bytes | None, query: Mapping[str, str]) -> Answer:
        """httpx bounds each wait; this bounds the whole, as an answer may also come drop by drop, or without end."""
        headers = {"content-type": "application/json"}
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        with self._http.stream(method, url, content=content, headers=headers, params=query or None) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > deadline or len(body) > _LONGEST_BYTES:
                    raise httpx.ReadTimeout("too slow or too long", request=response.request)
        return Answer(response.status_code, bytes(body))


class _Definitions(msgspec.Struct, frozen=True):
    users: tuple[UserInfo, ...] = ()


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def connect(broker: BrokerSettings) -> Management:
    """The management API that the settings name, as their administrator. Raises ConfigError."""
    if not broker.admin_username:
        raise ConfigError("There is no administrator: set broker.admin_username and broker.admin_password_file.")
    secret = read_secret(broker.admin_password, broker.admin_password_file, setting="broker.admin_password_file")
    user = secret.username or broker.admin_username
    return Management(broker.management_url, user, secret.password, tls=tls_of(broker))


def tls_of(broker: BrokerSettings) -> TlsOptions:
    """The certificate files that the settings name."""
    return TlsOptions(broker.ca_file, broker.cert_file, broker.key_file)

"""What a private node is told: its configuration files and environment, as pure functions of the node's record.

Every listener is bound to the loopback address, and no secret is in the environment or on the command line: they are
in files that only their owner can read. Writes and starts nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

LOOPBACK = "127.0.0.1"
OWNER_VARIABLE = "MODELMQ_NODE"
"""Set to the node's folder for every process of the node, so that leftovers nobody recorded are found as well."""

_MIB = 2**20
_SMALLEST_MEMORY = 256 * _MIB
_LARGEST_MEMORY = 2048 * _MIB


class Ports(msgspec.Struct, frozen=True):
    """All on the loopback address. 0 is none: `amqps` and `https` without TLS, `amqp` and `management` with it only."""

    amqp: int
    management: int
    distribution: int
    epmd: int
    amqps: int = 0
    https: int = 0


class Configuration(msgspec.Struct, frozen=True):
    """The texts of rabbitmq.conf, which holds the administrator's password, and of enabled_plugins."""

    conf: str
    plugins: str


class NodeFiles(msgspec.Struct, frozen=True):
    """Where everything of one node is. `output` holds what the runtime prints while its own log is not open."""

    folder: Path
    record: Path
    running: Path
    lock: Path
    cookie: Path
    conf: Path
    advanced: Path
    plugins: Path
    preload: Path
    data: Path
    logs: Path
    log: Path
    output: Path
    ca: Path
    certificate: Path
    key: Path

    def relative(self, path: Path) -> str:
        """As the node may name it, which runs in its folder: rabbitmq.conf cannot quote what a path may hold."""
        return str(path.relative_to(self.folder))


def files_in(folder: Path) -> NodeFiles:
    """The layout of a node's folder."""
    logs, tls = folder / "log", folder / "tls"
    return NodeFiles(
        folder=folder,
        record=folder / "node.json",
        running=folder / "running.json",
        lock=folder / "lock",
        cookie=folder / ".erlang.cookie",
        conf=folder / "rabbitmq.conf",
        advanced=folder / "advanced.config",
        plugins=folder / "enabled_plugins",
        preload=folder / "preload.eval",
        data=folder / "data",
        logs=logs,
        log=logs / "rabbitmq.log",
        output=logs / "output.log",
        ca=tls / "ca.pem",
        certificate=tls / "server.pem",
        key=tls / "server.key",
    )


def memory_limit_bytes(machine_bytes: int) -> int:
    """Where the node stops accepting messages: two fifths of the machine's memory, within bounds."""
    return min(max(machine_bytes * 2 // 5, _SMALLEST_MEMORY), _LARGEST_MEMORY)


def render_conf(
    files: NodeFiles,
    ports: Ports,
    username: str,
    password: str,
    memory_bytes: int,
    *,
    client_certificates: bool = False,
) -> str:
    """rabbitmq.conf, with keys that 3.10 to 4.x all know. Holds the administrator's password.

    With `client_certificates` the common name of one that the node's authority signed is a user's login.
    """
    lines = [
        *_plain_listeners(ports),
        # The user `guest` is only made when no other first user is named.
        f"default_user = {username}",
        f"default_pass = {password}",
        "default_user_tags.administrator = true",
        f"vm_memory_high_watermark.absolute = {memory_bytes}",
        "disk_free_limit.absolute = 200MB",
        # The default of 4.x, a sixteenth of that of 3.10; a message above it closes the channel.
        f"max_message_size = {16 * _MIB}",
        # By default a node keeps up to 512 MiB of its quorum queues' journal in memory as well. One this small is full
        # and empty again within a minute of load, so that memory stays flat.
        f"raft.wal_max_size_bytes = {16 * _MIB}",
        "log.file.level = info",
        f"log.file.rotation.size = {10 * _MIB}",
        "log.file.rotation.count = 3",
    ]
    if ports.amqps:
        lines += _tls_listeners(files, ports, client_certificates=client_certificates)
    return "\n".join(lines) + "\n"


def _plain_listeners(ports: Ports) -> list[str]:
    if not ports.amqp:
        return ["listeners.tcp = none"]
    return [
        f"listeners.tcp.1 = {LOOPBACK}:{ports.amqp}",
        f"management.tcp.ip = {LOOPBACK}",
        f"management.tcp.port = {ports.management}",
    ]


def _tls_listeners(files: NodeFiles, ports: Ports, *, client_certificates: bool) -> list[str]:
    lines = [
        f"listeners.ssl.1 = {LOOPBACK}:{ports.amqps}",
        f"management.ssl.ip = {LOOPBACK}",
        f"management.ssl.port = {ports.https}",
    ]
    for listener in ("ssl_options", "management.ssl"):
        lines += [
            f"{listener}.cacertfile = {files.relative(files.ca)}",
            f"{listener}.certfile = {files.relative(files.certificate)}",
            f"{listener}.keyfile = {files.relative(files.key)}",
        ]
    verify = "verify_peer" if client_certificates else "verify_none"
    lines += [f"ssl_options.verify = {verify}", "ssl_options.fail_if_no_peer_cert = false"]
    if client_certificates:
        lines += ["auth_mechanisms.1 = EXTERNAL", "auth_mechanisms.2 = PLAIN", "ssl_cert_login_from = common_name"]
    return lines


def render_advanced() -> str:
    """advanced.config: what rabbitmq.conf has no key for.

    A channel may have 32 unconfirmed publishes to one quorum queue before its whole connection is made to wait; a
    gateway has one connection for many models. A request that comes back from a delay to a queue that is full is tried
    again only after three minutes, and some of them hold up all others of that delay.

    3.10 writes the quorum queues' journal, then syncs it: two ways to another thread and back. A file opened for
    synchronous writing is as safe with one of them. 4.3 no longer knows this setting, and passes it over.

    The system's log is not used, yet the library for it opens a datagram socket on all addresses unless told otherwise.
    """
    settings = "{quorum_commands_soft_limit, 256}, {dead_letter_worker_publisher_confirm_timeout, 10000}"
    journal, system_log = "{wal_write_strategy, o_sync}", "{protocol, {rfc5424, standard_error}}"
    return f"[{{rabbit, [{settings}]}}, {{ra, [{journal}]}}, {{syslog, [{system_log}]}}].\n"


def render_plugins(*, client_certificates: bool = False) -> str:
    """The management API and what is asked for; each further plugin costs start-up time and memory."""
    return f"[rabbitmq_management{',rabbitmq_auth_mechanism_ssl' if client_certificates else ''}].\n"


def environment(files: NodeFiles, node_name: str, ports: Ports, path: str, schedulers: int) -> dict[str, str]:
    """The whole environment of the node and its epmd; nothing of ours is inherited, and it holds no secret."""
    runtime = f"+S {schedulers}:{schedulers} +sbwt very_short +sbwtdcpu none +sbwtdio very_short"
    return {
        "PATH": path,
        "LANG": "C.UTF-8",
        "HOME": str(files.folder),  # Erlang reads its cookie from here
        OWNER_VARIABLE: str(files.folder),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(ports.epmd),
        # For every Erlang program: RabbitMQ starts a second, short-lived one, which listens as well.
        "ERL_AFLAGS": f"-start_epmd false -kernel inet_dist_use_interface {{{LOOPBACK.replace('.', ',')}}}",
        "ERL_CRASH_DUMP": str(files.logs / "erl_crash.dump"),
        "ERL_CRASH_DUMP_SECONDS": "0",  # a dump would hold the cookie and passwords
        "RABBITMQ_NODENAME": node_name,
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_MNESIA_BASE": str(files.data),
        "RABBITMQ_LOG_BASE": str(files.logs),
        "RABBITMQ_LOGS": str(files.log),
        "RABBITMQ_PID_FILE": str(files.folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(files.plugins),
        "RABBITMQ_CONFIG_FILE": str(files.conf),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(files.advanced),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        # A moment of busy waiting takes a third off the boot, which is thousands of hand-overs between two threads.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": runtime,
        # Binding threads to cores is for a machine that runs nothing else.
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        # Makes the start script replace itself with the Erlang machine, so that the pid we started is the node's.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def preloading(files: NodeFiles, environment: dict[str, str]) -> dict[str, str]:
    """The environment of the node itself, which runs `files.preload` first.

    For what is started in the node's folder only: elsewhere that name could be anybody's file.
    """
    flags = f"{environment['ERL_AFLAGS']} -run file eval {files.relative(files.preload)}"
    return environment | {"ERL_AFLAGS": flags}

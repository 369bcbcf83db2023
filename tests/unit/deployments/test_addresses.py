"""Addresses as people write them, and ports that one server has."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.cluster.local import free_port
from deployments.cluster.ports import HeldPorts
from deployments.config.addresses import is_loopback, joined


@pytest.mark.parametrize(
    ("host", "address", "loopback"),
    [
        ("127.0.0.1", "127.0.0.1:7", True),
        ("127.8.8.8", "127.8.8.8:7", True),
        ("localhost", "localhost:7", True),
        ("::1", "[::1]:7", True),
        ("::", "[::]:7", False),
        ("0.0.0.0", "0.0.0.0:7", False),  # noqa: S104 - nothing is bound
        ("10.0.0.3", "10.0.0.3:7", False),
        ("example.org", "example.org:7", False),
    ],
)
def test_an_address_is_written_so_that_it_can_be_dialled(host: str, address: str, loopback: bool) -> None:
    assert (joined(host, 7), is_loopback(host)) == (address, loopback)


def test_a_free_port_is_one_that_the_kernel_gives_to_nobody_else() -> None:
    first, second = free_port(), free_port()
    assert first != second
    if (ephemeral := Path("/proc/sys/net/ipv4/ip_local_port_range")).exists():
        lowest = int(ephemeral.read_text().split()[0])
        assert all(port < lowest for port in (first, second)) or lowest < 21_000
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first))
        listener.listen()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])  # noqa: S104 - for a moment
def test_of_two_servers_that_start_together_one_has_the_port(host: str) -> None:
    """Nothing listens yet, which is how both used to find it free."""
    port = free_port()
    with HeldPorts() as first, HeldPorts() as second:
        first.take(host, port)
        with pytest.raises(OSError, match=f"cannot be listened on: another `headrace serve` has port {port}"):
            second.take(host, port)
        with socket.socket() as door:  # while it is held, its own front doors listen there
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            door.bind(("127.0.0.1", port))
            door.listen()
    with HeldPorts() as third:
        third.take(host, port)


def test_a_port_is_free_again_when_its_holder_is_killed() -> None:
    port = free_port()
    lines = ["import sys", "from deployments.cluster.ports import HeldPorts", "held = HeldPorts()", f"held.take('127.0.0.1', {port})"]
    script = "\n".join([*lines, "print('held', flush=True)", "sys.stdin.read()"])
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with HeldPorts() as ports, pytest.raises(OSError, match="another `headrace serve`"):
        ports.take("127.0.0.1", port)
    holder.kill()
    holder.communicate()
    with HeldPorts() as ports:
        ports.take("127.0.0.1", port)


def test_calls_and_metrics_cannot_share_a_port() -> None:
    port = free_port()
    with HeldPorts() as ports:
        ports.take("127.0.0.1", port)
        with pytest.raises(OSError, match=f"port {port} is asked for twice"):
            ports.take("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_named() -> None:
    with HeldPorts() as ports:
        with pytest.raises(OSError, match=r"192\.0\.2\.77:\d+ cannot be listened on: Cannot assign"):
            ports.take("192.0.2.77", free_port())
        with pytest.raises(OSError, match="cannot be listened on: it is no name of a host"):
            ports.take("a" * 70, free_port())

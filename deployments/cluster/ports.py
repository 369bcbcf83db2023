"""Ports that one server at a time may have.

Front doors share their port (`SO_REUSEPORT`), so the kernel lets a second server's front doors join the first server's, and callers would
reach either. A port is therefore taken for a server as a whole, before anything starts and until it has stopped.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import Self

from deployments.config.addresses import joined


class HeldPorts:
    """Ports of this machine that belong to this process, until `release` or its end.

    For each port it binds a name in the kernel's table of abstract sockets. Other servers of ours look there first. The name goes with
    the process.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._ports: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, host: str, port: int) -> None:
        """Raises OSError: `host` is no address of this machine, another server has the port, or something listens on it."""
        address = joined(host, port)
        if port in self._ports:
            raise OSError(errno.EADDRINUSE, f"{address} cannot be listened on: port {port} is asked for twice")
        try:
            family, kind, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        except socket.gaierror as error:
            raise OSError(error.errno, f"{address} cannot be listened on: {error.strerror}") from None
        except UnicodeError:
            raise OSError(errno.EINVAL, f"{address} cannot be listened on: it is no name of a host") from None
        name = self._held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        try:
            name.bind(f"\0headrace/port/{port}")
        except OSError:
            raise OSError(errno.EADDRINUSE, f"{address} cannot be listened on: another `headrace serve` has port {port}") from None
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server that has stopped do not count
            try:
                probe.bind(found)
            except OSError as error:
                raise OSError(error.errno, f"{address} cannot be listened on: {os.strerror(error.errno or 0)}") from None
        self._ports.add(port)

    def release(self) -> None:
        """Give the ports up. A second call does nothing."""
        self._held.close()

#!/usr/bin/env bash
# Linux and gRPC: two servers share a port with SO_REUSEPORT, and one of them, gRPC's, never gets a connection.
# The kernel spreads connections over the listeners of a port. But a C-core server that is told 127.0.0.1 listens on an IPv6 socket at
# ::ffff:127.0.0.1, and an IPv4 socket at the same address and port, as asyncio, Go or nginx open it, fits an IPv4 connection better.
# No bind fails, nothing warns. Between two listeners of the same kind connections are spread as expected.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install grpcio==1.85.1
"$folder/venv/bin/pip" --disable-pip-version-check list 2>/dev/null | grep '^grpcio '
uname -sr
"$folder/venv/bin/python" - <<'PY'
import socket
from concurrent import futures

import grpc

CONNECTIONS = 60


def other_gets(family: int, host: str) -> int:
    """Of so many connections, how many a plain listener beside a gRPC server accepts."""
    server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with socket.socket(family) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((host, port))
        other.listen(CONNECTIONS)
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        other.settimeout(0.5)
        accepted = []
        try:
            while True:
                accepted.append(other.accept()[0])
        except TimeoutError:
            pass
        for one in (*opened, *accepted):
            one.close()
    server.stop(0).wait()
    return len(accepted)


v4, v6 = other_gets(socket.AF_INET, "127.0.0.1"), other_gets(socket.AF_INET6, "::ffff:127.0.0.1")
print(f"beside a listener on 127.0.0.1 (IPv4):        gRPC gets {CONNECTIONS - v4} of {CONNECTIONS} connections")
print(f"beside a listener on ::ffff:127.0.0.1 (IPv6): gRPC gets {CONNECTIONS - v6} of {CONNECTIONS} connections")
raise SystemExit(0 if v4 == CONNECTIONS and 0 < v6 < CONNECTIONS else 1)
PY

#!/usr/bin/env bash
# gRPC for Python: a server that is given the authorities of clients, and does not require certificates, never asks a client for one.
# In other TLS servers that combination means "optional": who presents a certificate is verified and known, who has none is served as well.
# Here a client that holds a good certificate stays unknown: the server's context has nothing of it, and nothing warns. Only
# require_client_auth=True makes the server ask, and then it turns everybody else away in the handshake.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install grpcio==1.85.1 cryptography==50.0.2
"$folder/venv/bin/pip" --disable-pip-version-check list 2>/dev/null | grep -E '^(grpcio|cryptography) '
"$folder/venv/bin/python" - <<'PY'
import datetime as dt
import ipaddress
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def issued(name, by=None, uri=None):
    """A certificate and its key, PEM, and what signs others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (subject, key) if by is None else by
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] + ([x509.UniformResourceIdentifier(uri)] if uri else [])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(by is None, None), True)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem), private, (subject, key)


authority, _, signer = issued("an authority of clients")
server_chain, server_key, _ = issued("127.0.0.1")
client_chain, client_key, _ = issued("a client", signer, "spiffe://example.org/client")


def known_as(require):
    """What the server knows of a client that has a good certificate."""
    seen = []

    def answer(request, context):
        seen.append(context.auth_context().get("peer_uri"))
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", {"Call": method}),))
    credentials = grpc.ssl_server_credentials([(server_key, server_chain)], authority, require)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(server_chain, client_key, client_chain)) as channel:
        channel.unary_unary("/a.Service/Call")(b"", timeout=10)
    server.stop(0).wait()
    return seen[0]


optional, required = known_as(False), known_as(True)
print(f"require_client_auth=False: the server knows {optional}")
print(f"require_client_auth=True:  the server knows {required}")
raise SystemExit(0 if optional is None and required == [b"spiffe://example.org/client"] else 1)
PY

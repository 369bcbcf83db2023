"""Options of the commands that call a server over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import bad_input, existing_file

if TYPE_CHECKING:
    import grpc

_CA_HELP = "PEM of the authorities to trust, with TLS. [default: those that gRPC brings along]"

Tls = Annotated[bool, typer.Option("--tls", help="Connect with TLS. --ca and --cert ask for it, too.")]
Ca = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help=_CA_HELP, show_default=False)]
Cert = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="PEM of a client certificate and its chain.", show_default=False)]
CertKey = Annotated[Path | None, typer.Option("--cert-key", metavar="FILE", help="PEM of its private key.", show_default=False)]


def credentials(tls: bool, ca: Path | None, cert: Path | None, cert_key: Path | None) -> grpc.ChannelCredentials | None:
    """What the options say; None for plain text.

    Raises:
        Failure: a file cannot be read or is no PEM, or certificate and key do not belong together.
    """
    if not tls and ca is None and cert is None and cert_key is None:
        return None
    if (cert is None) != (cert_key is None):
        given, missing = ("--cert", "--cert-key") if cert_key is None else ("--cert-key", "--cert")
        raise bad_input(missing, f"must be given together with {given}; got none")
    checked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # gRPC would say no more than that the handshake failed
    if ca is not None:
        _check("--ca", ca, "a PEM file of certificates", partial(checked.load_verify_locations, ca))
    if cert is not None and cert_key is not None:
        existing_file("--cert-key", cert_key)
        pair = partial(checked.load_cert_chain, cert, cert_key, password=_no_pass_phrase)
        _check("--cert", cert, "a PEM file of the certificate that --cert-key is for, and the key one without a pass phrase", pair)

    import grpc

    read = tuple(None if path is None else path.read_bytes() for path in (ca, cert_key, cert))
    return grpc.ssl_channel_credentials(*read)


def _check(option: str, path: Path, wanted: str, load: Callable[[], None]) -> None:
    existing_file(option, path)
    try:
        load()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "it is not"
        raise bad_input(option, f"must be {wanted}; got {str(path)!r}: {reason}") from None


def _no_pass_phrase() -> str:
    """OpenSSL would ask for it on the terminal."""
    return ""

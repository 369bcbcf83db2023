"""Options of the commands that call a server over TLS."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console
from headrace.cli.console import bad_input, existing_file

if TYPE_CHECKING:
    import grpc

    from headrace.client import HeadraceClient

_CA_HELP = "PEM of the authorities to trust, with TLS. [default: those that gRPC brings along]"

Tls = Annotated[bool, typer.Option("--tls", help="Connect with TLS. --ca and --cert ask for it, too.")]
Ca = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help=_CA_HELP, show_default=False)]
Cert = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="PEM of a client certificate and its chain.", show_default=False)]
CertKey = Annotated[Path | None, typer.Option("--cert-key", metavar="FILE", help="PEM of its private key.", show_default=False)]


@dataclass(frozen=True, slots=True)
class Access:
    """How a command reaches its server: what its options say. `with_access` gives a command these options."""

    key: console.Key = ""
    tls: Tls = False
    ca: Ca = None
    cert: Cert = None
    cert_key: CertKey = None

    @property
    def secured(self) -> bool:
        """Whether TLS is asked for."""
        return self.tls or any(file is not None for file in (self.ca, self.cert, self.cert_key))

    def client(self, address: str) -> HeadraceClient:
        """Of the server at `address`, which has been checked. Raises Failure: as `credentials`, or the key cannot be sent."""
        return console.connected(address, self.key, self.credentials())

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For TLS; None for plain text.

        Raises:
            Failure: a file cannot be read or is no PEM, or certificate and key do not belong together.
        """
        ca, cert, cert_key = self.ca, self.cert, self.cert_key
        if not self.secured:
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


PLAIN = Access()
_PARAMETER = "access"


def with_access(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of `Access` where it has a parameter `access`, for typer, which knows no options in groups."""
    signature = inspect.signature(command, eval_str=True)
    options = list(inspect.signature(Access, eval_str=True).parameters.values())

    @wraps(command)
    def called(**given: Any) -> None:
        access = Access(**{option.name: given.pop(option.name) for option in options})
        command(**given, **{_PARAMETER: access})

    parameters = [each for own in signature.parameters.values() for each in (options if own.name == _PARAMETER else [own])]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what `inspect` looks for
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


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

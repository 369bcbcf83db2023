"""The part of the application's arguments that says who may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from deployments.config.addresses import is_loopback, url_parts
from deployments.config.settings import Settings
from deployments.config.tuning import TenantName
from service.identity.peers import network

# Signed with a private key that only the issuer has. With a shared secret, whoever checks tokens could make them.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class JwtSettings(Settings):
    """Tokens of an issuer, as an OpenID provider makes them.

    Attributes:
        issuer, audience: the token's `iss` must be the one, and its `aud` one of the others.
        jwks: where the issuer's public keys are: an https URL, or a file on every node that runs a front door.
        algorithms: that tokens may be signed with.
        tenant_claim: the claim that holds the tenant.
        models_claim: the claim that holds the models which the token may use; empty: it may use all.
        buckets_claim: the claim that holds the S3 buckets that results may be written to; empty: `identity.buckets` alone says.
        leeway_seconds: between the issuer's clock and ours.
    """

    issuer: Name
    audience: Annotated[tuple[Name, ...], Field(min_length=1)]
    jwks: Name
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    tenant_claim: Name = "tenant"
    models_claim: Annotated[str, Field(max_length=512)] = ""
    buckets_claim: Annotated[str, Field(max_length=512)] = ""
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30

    @field_validator("jwks")
    @classmethod
    def _cannot_be_forged_on_its_way(cls, where: str) -> str:
        if "://" in where:
            parts = url_parts(where)
            local = parts.scheme == "http" and is_loopback(parts.hostname or "")
            if not parts.hostname or not (parts.scheme == "https" or local):
                raise ValueError(f"must be https://HOST/PATH, or a file; got {where!r}")
        return where


class CertificateSettings(Settings):
    """Client certificates. The gRPC port then takes no caller without one; the HTTP port, if it has TLS, takes those that are shown.

    They need `front_door.tls`.

    Attributes:
        ca_file: PEM, the authorities that sign them, on every node that runs a front door.
        tenants: by a name in the certificate: a SPIFFE id or another URI, or a DNS name.
    """

    ca_file: Name
    tenants: Annotated[dict[Name, TenantName], Field(min_length=1)]


class IdentitySettings(Settings):
    """Who may call; see `service.identity`.

    Attributes:
        keys: `required`: callers present an API key of `headrace keys create`; `off`: there are no keys.
        insecure: True lets anybody call who reaches a front door that listens beyond this machine. Nothing else does.
        master_variable: environment variable of the front doors with the master secret, which all of them share. Keys, and tokens for
            clients, depend on it.
        cache_seconds: how long a front door remembers a key, and so how long a revoked one may still be used.
        proxies: addresses and networks of gateways that know their callers, and say their tenant in `x-headrace-tenant`.
        buckets: of S3, by tenant: where its results may be written to, however its callers are known. A key may have more of its own.
        open_buckets: of S3, that results may be written to where callers are asked for nothing.
    """

    keys: Literal["off", "required"] = "off"
    insecure: bool = False
    master_variable: Annotated[str, Field(pattern=r"^$|^[A-Za-z_][A-Za-z0-9_]*$")] = "HEADRACE_MASTER_SECRET"
    cache_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    proxies: tuple[str, ...] = ()
    buckets: dict[TenantName, tuple[Bucket, ...]] = Field(default_factory=dict)
    open_buckets: tuple[Bucket, ...] = ()
    jwt: JwtSettings | None = None
    certificates: CertificateSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_word(cls, given: Any) -> Any:
        """YAML reads `off` as false."""
        return {**given, "keys": "off"} if isinstance(given, Mapping) and given.get("keys") is False else given

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            try:
                network(each)
            except ValueError:
                raise ValueError(f"must be IP addresses, or networks such as 10.0.0.0/8; got {each!r}") from None
        return proxies

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.insecure and self.asked_for:
            raise ValueError(f"insecure must be false where {self.asked_for} is set: callers are asked for it either way; got true")
        if self.open_buckets and self.asked_for:
            raise ValueError(f"open_buckets must be empty where {self.asked_for} is set: tenants have buckets of their own")
        if self.buckets and not self.asked_for:
            raise ValueError("buckets must be empty where callers are asked for nothing, so that no tenant is known; see open_buckets")
        if self.keys == "required" and not self.master_variable:
            raise ValueError("master_variable must name an environment variable with keys required; got ''")
        return self

    @property
    def asked_for(self) -> str:
        """What callers are asked for, for messages; empty for nothing."""
        means = (("keys", self.keys == "required"), ("jwt", self.jwt is not None), ("certificates", self.certificates is not None))
        return ", ".join(name for name, asked in means if asked)


def check_exposure(identity: IdentitySettings, hosts: Mapping[str, str]) -> None:
    """The rule: a front door that others than this machine reach asks callers who they are.

    Args:
        hosts: where it listens, by the setting that says so.

    Raises:
        ValueError: it would not, and nobody has said that it need not.
    """
    if identity.asked_for or identity.insecure:
        return
    for setting, host in hosts.items():
        if host and not is_loopback(host):
            raise ValueError(
                f"identity.keys must be 'required', or identity.jwt or identity.certificates be set, because {setting} {host} faces the "
                f"network and anybody there could call; got {identity.keys!r}. To let anybody call, set identity.insecure to true"
            )

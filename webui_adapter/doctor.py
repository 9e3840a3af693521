"""The part of ``eventbus doctor`` about the gateway: its settings, and the limits of the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from eventbus.doctor.findings import Check, Finding, bad, good, risky, run_checks, unknown
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings, read_settings

__all__ = ["GATEWAY_CHECKS", "GatewayFacts", "examine"]

_RESERVED: Final = 64  # descriptors for Redis, the log, the listening socket and the event loop
_SECRET_BYTES, _SECRET_VARIETY = 32, 10
_NO_SETTINGS: Final = "the environment has no settings of a gateway"
_ENVIRONMENT: Final = "run it with the environment of the gateway"


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """Facts of a gateway. It holds no secret.

    Attributes:
        settings: the settings; None: the environment has none.
        secret_bytes: length of the shared secret; 0 without one.
        secret_variety: number of different characters in it.
        descriptors: file descriptors that a process may open; None: unlimited or unknown.
    """

    settings: GatewaySettings | None
    secret_bytes: int = 0
    secret_variety: int = 0
    descriptors: int | None = None


def token_key(facts: GatewayFacts) -> Finding:
    """The key of the tokens cannot be guessed."""
    settings = facts.settings
    if settings is None:
        return unknown("token-key", _NO_SETTINGS, _ENVIRONMENT)
    if not settings.jwt_algorithm.startswith("HS"):
        return good("token-key", f"{settings.jwt_algorithm} with a public key: gateways cannot sign tokens")
    advice = "export WEBUI_JWT_SECRET=$(openssl rand -hex 32)"
    if facts.secret_variety < _SECRET_VARIETY:
        return bad("token-key", f"the secret has only {facts.secret_variety} different characters", advice)
    if facts.secret_bytes < _SECRET_BYTES:
        text = f"the secret has {facts.secret_bytes} bytes; {settings.jwt_algorithm} is as strong as {_SECRET_BYTES}"
        return risky("token-key", text, advice)
    return good("token-key", f"{settings.jwt_algorithm} with a secret of {facts.secret_bytes} bytes")


def token_claims(facts: GatewayFacts) -> Finding:
    """A token of another application of the same issuer opens no session."""
    settings = facts.settings
    if settings is None:
        return unknown("token-claims", _NO_SETTINGS, _ENVIRONMENT)
    if settings.jwt_audience is None and not settings.jwt_claims and settings.jwt_type is None:
        text = "tokens of any purpose with the same key are accepted"
        return risky("token-claims", text, "set WEBUI_JWT_AUDIENCE, WEBUI_JWT_TYPE or WEBUI_JWT_CLAIMS")
    return good("token-claims", "tokens of other purposes are refused")


def origins(facts: GatewayFacts) -> Finding:
    """Pages of other sites cannot connect, and no one on the network can change a page."""
    settings = facts.settings
    if settings is None:
        return unknown("origins", _NO_SETTINGS, _ENVIRONMENT)
    plain = [
        origin
        for origin in settings.allowed_origins
        if origin.startswith("http://") and urlsplit(origin).hostname not in {"localhost", "127.0.0.1", "::1"}
    ]
    if plain:
        return risky("origins", f"{', '.join(plain)} is not encrypted", "serve the pages by https")
    return good("origins", ", ".join(settings.allowed_origins) or "only pages of the gateway's own host")


def descriptors(facts: GatewayFacts) -> Finding:
    """The system lets a gateway have as many connections as its settings do."""
    settings = facts.settings
    if settings is None:
        return unknown("descriptors", _NO_SETTINGS, _ENVIRONMENT)
    needed = settings.max_total_connections + settings.max_unauthenticated_connections + _RESERVED
    if facts.descriptors is None or facts.descriptors >= needed:
        return good("descriptors", f"{needed} of {facts.descriptors or 'any number'}")
    text = f"a process may open {facts.descriptors} files, and the connections need {needed}"
    return bad("descriptors", text, f"raise `ulimit -n` to {needed}, or lower WEBUI_MAX_TOTAL_CONNECTIONS")


def broker(facts: GatewayFacts) -> Finding:
    """The broker's password is encrypted on the way."""
    settings = facts.settings
    if settings is None or settings.broker_url is None:
        return good("broker", "the gateway does not use it")
    address = urlsplit(settings.broker_url.get_secret_value())
    if address.scheme in {"rediss", "amqps"}:
        return good("broker", "encrypted")
    if address.hostname in {"localhost", "127.0.0.1", "::1", None}:
        return good("broker", "not encrypted, and does not leave this machine")
    return risky("broker", "not encrypted", "use rediss:// or amqps:// in WEBUI_BROKER_URL, or a private network")


GATEWAY_CHECKS: Final[tuple[Check[GatewayFacts], ...]] = (token_key, token_claims, origins, descriptors, broker)
"""All checks of a gateway."""


def examine() -> list[Finding]:
    """Check the gateway whose settings are in the environment.

    Returns:
        The findings.
    """
    try:
        facts = _gather()
    except NotConfigured as error:
        found = [bad("gateway", str(error), "correct the setting; the gateway does not start")]
    else:
        found = run_checks(GATEWAY_CHECKS, facts)
    return [replace(finding, subject="gateway") for finding in found]


def _gather() -> GatewayFacts:
    if not any(name.startswith("WEBUI_") for name in os.environ):
        return GatewayFacts(None)
    settings = read_settings(GatewaySettings)
    secret = "" if settings.jwt_secret is None else settings.jwt_secret.get_secret_value()
    return GatewayFacts(settings, len(secret.encode()), len(set(secret)), _descriptors())


def _descriptors() -> int | None:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft

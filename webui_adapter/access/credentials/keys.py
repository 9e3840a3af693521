"""The key that checks the signatures of tokens. A wrong one is an error at the start, not at the first visitor."""

from __future__ import annotations

from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings

__all__ = ["check_key", "prepare_key"]

# RFC 7518, sections 3.3 and 3.4.
_RSA_BITS: Final = 2048
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


def prepare_key(settings: GatewaySettings) -> Any:
    """Read the key and prepare it: to read a PEM file costs a fifth of a check.

    Args:
        settings: algorithm and key.

    Returns:
        The key as PyJWT takes it.

    Raises:
        NotConfigured: the key cannot be read, does not fit the algorithm, is private, or is too short.
    """
    try:
        text = settings.jwt_key
        key = jwt.get_algorithm_by_name(settings.jwt_algorithm).prepare_key(text)
    except OSError as error:
        raise _unusable(settings, f"cannot read {settings.jwt_key_file}: {error.strerror}") from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise _unusable(settings, str(error)) from error
    if settings.jwt_algorithm.startswith("HS"):
        return key
    if "PRIVATE KEY" in text:
        raise _unusable(settings, "the file has a private key; give the gateway the public key only")
    try:
        check_key(key, settings.jwt_algorithm)
    except ValueError as error:
        raise _unusable(settings, str(error)) from None
    return key


def check_key(key: Any, algorithm: str) -> None:
    """Check that a public key is strong enough, and on the curve of the algorithm.

    Args:
        key: the key as PyJWT takes it.
        algorithm: the algorithm of the tokens.

    Raises:
        ValueError: it is not.
    """
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits is too short; use at least {_RSA_BITS} bits")
    curve = _CURVES.get(algorithm)
    if curve is not None and key.curve.name != curve:
        raise ValueError(f"the key is on the curve {key.curve.name}; use one on {curve}")


def _unusable(settings: GatewaySettings, reason: str) -> NotConfigured:
    name = "WEBUI_JWT_KEY_FILE" if settings.jwt_key_file else "WEBUI_JWT_SECRET"
    return NotConfigured(f"cannot use {name} as a key for {settings.jwt_algorithm}: {reason}")

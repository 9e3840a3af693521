"""All settings of the gateway, with their defaults. The variable of a setting is ``WEBUI_<NAME>``."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from webui_adapter.errors import NotConfigured

__all__ = ["GatewaySettings", "read_settings"]

S = TypeVar("S", bound=BaseSettings)

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class GatewaySettings(BaseSettings):
    """Settings of one gateway process. Times are in seconds, sizes in bytes, rates per second."""

    model_config = SettingsConfigDict(env_prefix="WEBUI_", frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on, for the stand-alone gateway.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on, for the stand-alone gateway.")
    workers: int = Field(1, ge=1, le=256, description="Processes that share the port, for the stand-alone gateway.")
    prefix: str = Field("/eventbus", pattern=r"^(/[A-Za-z0-9_.-]+)*$", description="Path of the gateway's routes.")
    instance: str = Field("", description="Name of this process in logs and bus.hello. Default: host and process id.")
    events: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with event classes, separated by commas, to import at the start."
    )

    jwt_secret: SecretStr | None = Field(
        None, description="Key for HS256, HS384 or HS512; at least 32, 48 or 64 bytes."
    )
    jwt_key_file: Path | None = Field(None, description="File with the PEM public key for RS…, PS…, ES… or EdDSA.")
    jwt_jwks: str | None = Field(
        None, description="Address or file of a JSON Web Key Set with the public keys, in place of one key."
    )
    jwt_jwks_interval: float = Field(300.0, gt=0, description="Interval at which the key set is read again.")
    jwt_jwks_pause: float = Field(
        10.0, gt=0, description="Shortest pause between two readings for tokens with an unknown key."
    )
    jwt_jwks_timeout: float = Field(3.0, gt=0, description="Time limit for a reading of the key set.")
    jwt_jwks_size: int = Field(262_144, ge=1024, description="Largest key set.")
    jwt_algorithm: Algorithm = Field("HS256", description="Algorithm of the tokens' signatures.")
    jwt_issuer: str | None = Field(None, description="Required claim iss. Default: any.")
    jwt_audience: str | None = Field(None, description="Required claim aud. Default: any.")
    jwt_type: str | None = Field(
        None, description="Required header typ, such as at+jwt. Default: any. It keeps tokens of other purposes out."
    )
    jwt_claims: dict[str, str] = Field(
        default_factory=dict, description='Claims with their required values, as JSON, such as {"type": "access"}.'
    )
    jwt_user_claim: str = Field("sub", description="Claim with the user's id.")
    jwt_leeway: float = Field(0.0, ge=0, description="Time that a token is accepted after its exp.")
    jwt_begin_leeway: float = Field(
        10.0, ge=0, description="Time that a token is accepted before its iat and nbf, since clocks differ."
    )
    authenticate: str = Field(
        "",
        description="Function, as module:function, that says who connects. Default: tokens are JWTs, and a key for "
        "them is required.",
    )
    authenticate_timeout: float = Field(3.0, gt=0, description="Time limit for one call of that function.")
    authenticate_calls: int = Field(100, ge=1, description="Calls of that function at the same time. Others wait.")
    ticket_ttl: float = Field(30.0, ge=1, description="Time for which a ticket opens a connection, once.")
    max_tickets_per_user: int = Field(60, ge=1, description="Tickets of one user in that time.")
    max_session_life: float = Field(
        86_400.0,
        gt=0,
        description="Longest life of a session. It ends in the last tenth of it, and the page connects again.",
    )
    revocation_interval: float = Field(
        1.0, gt=0, description="Interval at which revocations are read, in addition to the announcement of each."
    )
    admin_claim: str = Field("scope", description="Claim with the scopes: a list, or a text separated by spaces.")
    admin_scope: str = Field(
        "eventbus:admin", min_length=1, description="Scope for dead letters and for the operations of other users."
    )
    cookie_name: str = Field("access_token", description="Cookie that may carry the token; empty: none.")
    authoriser: str = Field(
        "webui_adapter.access.authoriser:by_claim",
        description="Function, as module:function, that decides who may read which collection.",
    )

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Exact origins of pages, separated by commas. Default: only the request's own host."
    )

    max_connections_per_user: int = Field(10, ge=1, description="Connections of one user to this instance.")
    on_too_many: Literal["reject", "replace"] = Field(
        "reject", description="Above that: reject the new connection, or close the user's oldest one."
    )
    max_total_connections: int = Field(1000, ge=1, description="Connections with a token to this instance.")
    max_unauthenticated_connections: int = Field(
        500, ge=1, description="Connections that wait for their token. Above it the oldest of them is cut."
    )
    max_connections_per_address: int = Field(
        500, ge=1, description="Connections of one address to this instance. Above it: 429."
    )
    address_open_rate: float = Field(
        50.0, gt=0, description="Connections that one address opens, in the long run. Above it: 429."
    )
    address_open_burst: int = Field(200, ge=1, description="Connections that one address may open immediately.")
    address_ipv6_prefix: int = Field(64, ge=1, le=128, description="Bits of an IPv6 address that count as one address.")
    tracked_addresses: int = Field(
        10_000, ge=1, description="Addresses whose rate is remembered. Above it the least recent one is forgotten."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks of proxies, separated by commas, whose X-Forwarded-For names the client.",
    )
    heartbeat_interval: float = Field(30.0, gt=0, description="Interval of pings to one client.")
    heartbeat_timeout: float = Field(10.0, gt=0, description="Time limit for the answer to a ping.")
    message_rate_limit: float = Field(100.0, gt=0, description="Commands of one session.")
    user_rate_limit: float = Field(200.0, gt=0, description="Commands of one user, over all sessions of the instance.")
    instance_rate_limit: float = Field(5_000.0, gt=0, description="Commands of all sessions of the instance.")
    frame_rate_limit: float = Field(1_000.0, gt=0, description="WebSocket frames of one connection, of any kind.")
    byte_rate_limit: float = Field(1_048_576.0, ge=1024, description="Bytes that one WebSocket connection sends.")
    unauthenticated_frame_rate_limit: float = Field(
        50.0, gt=0, description="The same for frames before the connection has a token."
    )
    unauthenticated_byte_rate_limit: float = Field(
        131_072.0, ge=1024, description="The same for bytes before the connection has a token."
    )
    frames_per_turn: int = Field(
        100, ge=1, description="Frames of one connection that are parsed before other connections have their turn."
    )
    flood_patience: float = Field(
        2.0, ge=0, description="Time over these rates, with pauses in reading, after which a connection is closed."
    )
    max_message_size: int = Field(1_048_576, ge=1024, description="Largest event that the gateway delivers.")
    max_command_size: int = Field(65_536, ge=256, description="Largest command that the gateway reads.")
    max_auth_size: int = Field(
        32_768, ge=256, description="Largest command before the connection has a token, and bytes that may wait then."
    )
    max_topics: int = Field(128, ge=1, description="Patterns that one session may read.")
    max_bad_commands: int = Field(20, ge=1, description="Malformed commands after which a session is closed.")
    handshake_timeout: float = Field(
        10.0, gt=0, description="Time limit for a request's head, and again for its body. After it: 408."
    )
    max_head_size: int = Field(65_536, ge=1024, description="Largest head of any request but a handshake. Above: 431.")
    max_handshake_size: int = Field(16_384, ge=1024, description="Largest head of a WebSocket handshake. Above: 431.")
    auth_deadline: float = Field(
        5.0, gt=0, description="Time limit for the first command if the handshake had no token."
    )

    backlog_events: int = Field(10_000, ge=1, description="Events in the send queue of one slow client.")
    backlog_bytes: int = Field(1_048_576, ge=4096, description="Bytes in the send queue of one slow client.")
    replay_events: int = Field(500, ge=1, description="Events of a history that are read and written in one step.")
    replay_bytes: int = Field(524_288, ge=4096, description="Bytes of a history that are read and written in one step.")
    write_high: int = Field(65_536, ge=1024, description="Unsent bytes in a socket above which its client is slow.")
    stuck_after: float = Field(30.0, gt=0, description="A client that reads nothing for so long is disconnected.")
    close_timeout: float = Field(5.0, gt=0, description="Time limit for a client's answer to a close frame.")
    history_calls: int = Field(20_000, ge=16, description="Calls to Redis that may wait for an answer.")
    sweep_interval: float = Field(5.0, gt=0, description="Interval at which the sweeper looks for expired events.")
    sweep_lease: float = Field(
        30.0, gt=0, description="Lease of the instance that sweeps. Another instance takes over when it expires."
    )
    lease_grace: float = Field(
        30.0, gt=0, description="Time for workers to renew leases after an outage of Redis; at least their lease."
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery's broker, to send cancellations to workers. Default: workers poll Redis."
    )
    broker_options: dict[str, object] = Field(
        default_factory=dict, repr=False, description="Celery's broker_transport_options, as a JSON object."
    )
    broker_exchange: str = Field("celery", min_length=1, description="Celery's control_exchange.")
    broker_timeout: float = Field(2.0, gt=0, description="Time limit for each step of a call to the broker.")
    instance_interval: float = Field(
        2.0, gt=0, description="Interval of heartbeats in the registry of instances; a third of their lease."
    )
    forward_timeout: float = Field(
        2.0, gt=0, description="Time limit for another instance to accept a command for one of its sessions."
    )
    forwarded_commands: int = Field(1_000, ge=1, description="Commands that may wait for other instances.")
    probe_interval: float = Field(1.0, gt=0, description="Interval of health checks of Redis.")
    probe_timeout: float = Field(2.0, gt=0, description="Time limit for a health check to arrive through pub/sub.")
    newer_format_interval: float = Field(
        10.0, gt=0, description="Shortest pause between two bus.gap of a channel that a newer version writes."
    )
    newer_format_window: float = Field(
        60.0, gt=0, description="The gateway is not ready for so long after it last met a newer format in Redis."
    )
    check_interval: float = Field(10.0, gt=0, description="Interval at which idle channels are compared with Redis.")
    check_batch: int = Field(100, ge=1, description="Channels compared in one round trip.")
    local_events: int = Field(
        1_000, ge=1, description="Events of this process that may wait for the event loop while Redis is unreachable."
    )
    check_events: bool = Field(
        False,
        description="Validate every event against its class (see events). Invalid events become dead letters. "
        "Costs one JSON parse per event.",
    )
    dead_waiting: int = Field(1_000, ge=1, description="Undeliverable events that may wait to be stored.")
    dead_spill_bytes: int = Field(
        16 * 1_048_576, ge=0, description="Dead letters kept on disk while Redis accepts no writes."
    )
    drain_spread: float = Field(
        2.0, ge=0, description="Time over which sessions are asked to reconnect elsewhere at shutdown."
    )
    shutdown_grace: float = Field(5.0, ge=0, description="Time for sessions to do so before they are closed.")

    gc_threshold: int = Field(
        10_000, ge=0, description="New objects between two runs of the garbage collector; 0: it never runs."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of log lines, for the stand-alone gateway."
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("allowed_origins", "events", "trusted_proxies"):
            text = values.get(name)
            if isinstance(text, str):
                values[name] = tuple(part.strip() for part in text.split(",") if part.strip())
        return values

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            right = _origin_form(origin)
            if right != origin:
                raise ValueError(f"the origin {origin} can never match what a browser sends: write {right}")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy} is no address: write addresses or networks, such as 10.0.0.0/8") from None
        return proxies

    @property
    def jwt_key(self) -> str:
        """The key of the tokens' signatures. Raises NotConfigured if there is none, OSError if it cannot be read."""
        if self.jwt_algorithm.startswith("HS"):
            # RFC 7518, section 3.2: a key is at least as long as the hash.
            least = int(self.jwt_algorithm[2:]) // 8
            if self.jwt_secret is None or len(self.jwt_secret.get_secret_value().encode()) < least:
                raise NotConfigured(
                    f"set WEBUI_JWT_SECRET ({least} bytes or more) for {self.jwt_algorithm}, "
                    "or WEBUI_JWT_ALGORITHM=RS256 or ES256 and WEBUI_JWT_KEY_FILE"
                )
            return self.jwt_secret.get_secret_value()
        if self.jwt_key_file is None:
            raise NotConfigured(f"set WEBUI_JWT_KEY_FILE to a PEM public key for {self.jwt_algorithm}")
        return self.jwt_key_file.read_text(encoding="ascii")


def _origin_form(origin: str) -> str:
    """Return an origin as browsers send it: scheme, host, and a port that is not the default one; no path."""
    scheme, separator, rest = origin.lower().rpartition("://")
    host = rest.partition("/")[0]
    if "*" in host or not host:
        return "each origin by itself, such as https://app.example.org"
    scheme = scheme if separator else "https"
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return f"{scheme}://{host.removesuffix(default) if default else host}"


def read_settings(cls: type[S], **given: Any) -> S:
    """Read settings from the environment.

    Args:
        cls: the class of the settings.
        given: values that take precedence over the environment.

    Returns:
        The settings.

    Raises:
        NotConfigured: a value is invalid. The message names its variable, in one line and without the value.
    """
    prefix = str(cls.model_config.get("env_prefix", ""))
    try:
        return cls(**given)
    except ValidationError as error:
        problems = [_problem(prefix, ".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
        raise NotConfigured("; ".join(problems)) from None
    except SettingsError as error:
        # pydantic-settings raises this for a value that must be JSON. Only the text names the field.
        field = re.search(r'"(\w+)"', str(error))
        raise NotConfigured(_problem(prefix, field[1] if field else "", "cannot parse the value as JSON")) from None


def _problem(prefix: str, field: str, message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{prefix}{field.upper()}: {text}" if field else text

"""Every bound and choice of the gateway, with its default. Each can be set by environment: ``WEBUI_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

__all__ = ["GatewaySettings"]

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


class GatewaySettings(BaseSettings):
    """What one gateway process does. Times are seconds, sizes bytes, rates per second."""

    model_config = SettingsConfigDict(env_prefix="WEBUI_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    prefix: str = Field("/eventbus", pattern=r"^(/[A-Za-z0-9_.-]+)*$", description="path under which the routes live")
    instance: str = Field("", description="name of this process in logs and bus.hello; default: host and pid")
    events: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="modules to import at the start, comma-separated; they declare event classes"
    )

    jwt_secret: SecretStr | None = Field(None, description="for HS256, HS384, HS512")
    jwt_key_file: Path | None = Field(None, description="PEM public key for RS… and ES…")
    jwt_algorithm: Algorithm = "HS256"
    jwt_issuer: str | None = Field(None, description="required iss, if set")
    jwt_audience: str | None = Field(None, description="required aud, if set")
    jwt_user_claim: str = Field("sub", description="claim with the user's id")
    jwt_leeway: float = Field(0.0, ge=0, description="clock difference that is forgiven")
    admin_claim: str = Field("scope", description="claim with the scopes, a list or a text with spaces between")
    admin_scope: str = Field(
        "eventbus:admin", min_length=1, description="scope for dead letters, and operations of others"
    )
    cookie_name: str = Field("access_token", description="cookie that may carry the token; empty: none")
    authoriser: str = Field(
        "webui_adapter.access.authoriser:by_claim",
        description="module:function that says who may read which collection",
    )

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="exact origins, comma-separated; none: only the request's own host"
    )

    max_connections_per_user: int = Field(10, ge=1)
    on_too_many: Literal["reject", "replace"] = Field("reject", description="reject the new one, or close the oldest")
    max_total_connections: int = Field(1000, ge=1)
    heartbeat_interval: float = Field(30.0, gt=0, description="between two pings to one browser")
    heartbeat_timeout: float = Field(10.0, gt=0, description="for the pong")
    message_rate_limit: float = Field(100.0, gt=0, description="commands of one session")
    user_rate_limit: float = Field(200.0, gt=0, description="commands of one user, over all sessions of the instance")
    instance_rate_limit: float = Field(5_000.0, gt=0, description="commands of all sessions of the instance")
    max_message_size: int = Field(1_048_576, ge=1024, description="largest event that is carried")
    max_command_size: int = Field(65_536, ge=256, description="largest command that is read")
    max_topics: int = Field(128, ge=1, description="patterns of one session")
    max_bad_commands: int = Field(20, ge=1, description="malformed commands of one session before it is closed")
    handshake_timeout: float = Field(10.0, gt=0, description="for a request's head, then its body; after it: 408")
    max_head_size: int = Field(65_536, ge=1024, description="largest head of any other request; above: 431")
    max_handshake_size: int = Field(16_384, ge=1024, description="largest head of a WebSocket's request; above: 431")
    auth_deadline: float = Field(5.0, gt=0, description="for the first message where the handshake had no token")

    backlog_events: int = Field(10_000, ge=1, description="events that may wait for one slow browser")
    backlog_bytes: int = Field(1_048_576, ge=4096, description="bytes that may wait for one slow browser")
    replay_events: int = Field(500, ge=1, description="events of a history that are read and written at once")
    replay_bytes: int = Field(524_288, ge=4096, description="the same in bytes")
    write_high: int = Field(65_536, ge=1024, description="bytes in the socket's buffer from which on a browser is slow")
    stuck_after: float = Field(30.0, gt=0, description="a browser that takes nothing for so long is closed")
    close_timeout: float = Field(5.0, gt=0, description="for a browser to answer a close; then it is cut off")
    history_calls: int = Field(20_000, ge=16, description="calls to Redis that may wait for their answers")
    sweep_interval: float = Field(5.0, gt=0, description="between two looks at what is owed for too long")
    sweep_lease: float = Field(30.0, gt=0, description="of the instance that looks; another takes over after it")
    lease_grace: float = Field(
        30.0, gt=0, description="for workers to renew their leases after Redis was away; not less than their lease"
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery's broker: a cancel is told there too; none: workers look into Redis twice a second"
    )
    broker_options: dict[str, object] = Field(
        default_factory=dict, description="as Celery's broker_transport_options, a JSON object"
    )
    broker_exchange: str = Field("celery", min_length=1, description="as Celery's control_exchange")
    broker_timeout: float = Field(2.0, gt=0, description="for each step of telling the broker")
    probe_interval: float = Field(1.0, gt=0, description="between two probes of Redis")
    probe_timeout: float = Field(2.0, gt=0, description="for a probe to come back through pub/sub")
    check_interval: float = Field(10.0, gt=0, description="between two comparisons of quiet channels with Redis")
    check_batch: int = Field(100, ge=1, description="channels compared in one round trip")
    local_events: int = Field(1_000, ge=1, description="events of this process that wait to be shown without Redis")
    check_events: bool = Field(
        False, description="hold each event against its class (see events): what fails is a dead letter; costs a parse"
    )
    dead_waiting: int = Field(1_000, ge=1, description="events that cannot be delivered and wait to be buried")
    dead_spill_bytes: int = Field(16 * 1_048_576, ge=0, description="dead letters on disk while Redis takes nothing")
    drain_spread: float = Field(2.0, ge=0, description="over how long sessions are told to leave at shutdown")
    shutdown_grace: float = Field(5.0, ge=0, description="for sessions to leave by themselves at shutdown")

    gc_threshold: int = Field(
        10_000, ge=0, description="new objects between two looks of the garbage collector; 0: never"
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("allowed_origins", "events"):
            text = values.get(name)
            if isinstance(text, str):
                values[name] = tuple(part.strip() for part in text.split(",") if part.strip())
        return values

    @model_validator(mode="after")
    def _require_key(self) -> GatewaySettings:
        if self.jwt_algorithm.startswith("HS"):
            if self.jwt_secret is None or len(self.jwt_secret.get_secret_value()) < 16:
                raise ValueError(
                    f"set WEBUI_JWT_SECRET (16 characters or more) for {self.jwt_algorithm}, "
                    "or WEBUI_JWT_ALGORITHM=RS256 or ES256 and WEBUI_JWT_KEY_FILE"
                )
        elif self.jwt_key_file is None:
            raise ValueError(f"set WEBUI_JWT_KEY_FILE to a PEM public key for {self.jwt_algorithm}")
        return self

    @property
    def jwt_key(self) -> str:
        """The key that signatures are checked with. Raises OSError if the key file cannot be read."""
        if self.jwt_algorithm.startswith("HS"):
            assert self.jwt_secret is not None
            return self.jwt_secret.get_secret_value()
        assert self.jwt_key_file is not None
        return self.jwt_key_file.read_text(encoding="ascii")

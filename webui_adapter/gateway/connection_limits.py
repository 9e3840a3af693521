"""Who may have another connection: bounds per instance and per user. No I/O."""

from __future__ import annotations

from webui_adapter.session.session import Session
from webui_adapter.settings import GatewaySettings

__all__ = ["ConnectionLimits"]


class ConnectionLimits:
    """Counts connections of this instance.

    Attributes:
        connections: those that were let in and have not left.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._of_user: dict[str, dict[Session, None]] = {}
        self.connections = 0

    @property
    def full(self) -> bool:
        """Whether the instance takes no more: asked before a handshake is answered."""
        return self.connections >= self._settings.max_total_connections

    def add(self, session: Session, user: str) -> tuple[bool, Session | None]:
        """Count a session under its user. Returns whether it is one too many, and the oldest where that is to go."""
        of_user = self._of_user.setdefault(user, {})
        replaced = None
        if len(of_user) >= self._settings.max_connections_per_user:
            if self._settings.on_too_many == "reject":
                return True, None
            replaced = next(iter(of_user))
            del of_user[replaced]
        of_user[session] = None
        return False, replaced

    def disconnected(self, session: Session) -> None:
        """The connection is gone."""
        if session.principal is None:
            return
        of_user = self._of_user.get(session.principal.user)
        if of_user is not None:
            of_user.pop(session, None)
            if not of_user:
                del self._of_user[session.principal.user]

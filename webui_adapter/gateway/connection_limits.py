"""Bounds on the number of connections, per instance and per user. No I/O."""

from __future__ import annotations

from webui_adapter.session.session import Session
from webui_adapter.settings import GatewaySettings

__all__ = ["ConnectionLimits"]


class ConnectionLimits:
    """Counts the connections of this instance.

    Args:
        settings: the bounds.

    Attributes:
        connections: the open connections.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._of_user: dict[str, dict[Session, None]] = {}
        self._unauthenticated: dict[Session, None] = {}
        self.connections = 0

    @property
    def full(self) -> bool:
        """Whether the instance accepts no more users' connections. Checked before a handshake is answered."""
        return self.connections - len(self._unauthenticated) >= self._settings.max_total_connections

    @property
    def unauthenticated(self) -> int:
        """How many connections wait for their token."""
        return len(self._unauthenticated)

    def connected(self, session: Session) -> Session | None:
        """Count a connection that waits for its token.

        Args:
            session: the new session.

        Returns:
            The session that has waited longest, if that one must go.
        """
        self.connections += 1
        oldest = None
        if len(self._unauthenticated) >= self._settings.max_unauthenticated_connections:
            oldest = next(iter(self._unauthenticated))
        self._unauthenticated[session] = None
        return oldest

    def add(self, session: Session, user: str) -> tuple[bool, Session | None]:
        """Count a session towards its user.

        Args:
            session: the session.
            user: the user's id.

        Returns:
            Whether the session exceeds the bound, and the user's oldest session if that one must close instead.
        """
        of_user = self._of_user.setdefault(user, {})
        replaced = None
        if len(of_user) >= self._settings.max_connections_per_user:
            if self._settings.on_too_many == "reject":
                return True, None
            replaced = next(iter(of_user))
            del of_user[replaced]
        of_user[session] = None
        self._unauthenticated.pop(session, None)
        return False, replaced

    def disconnected(self, session: Session) -> None:
        """Forget a session whose connection has ended.

        Args:
            session: the session.
        """
        self.connections -= 1
        self._unauthenticated.pop(session, None)
        if session.principal is None:
            return
        of_user = self._of_user.get(session.principal.user)
        if of_user is not None:
            of_user.pop(session, None)
            if not of_user:
                del self._of_user[session.principal.user]

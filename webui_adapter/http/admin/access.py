"""Access to the paths for admins."""

from __future__ import annotations

from webui_adapter.access.principal import Principal
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.gateway import Gateway

__all__ = ["check_admin"]


def check_admin(gateway: Gateway, principal: Principal) -> None:
    """Check that the user is an admin.

    Args:
        gateway: the gateway that is asked.
        principal: the user who asks.

    Raises:
        CommandRefused: ``forbidden``.
    """
    if gateway.settings.admin_scope not in principal.scopes:
        raise CommandRefused("forbidden", f"the token needs the scope {gateway.settings.admin_scope}")

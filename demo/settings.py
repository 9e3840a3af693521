"""What the demo's processes share, by environment ``DEMO_<NAME>``. ``python -m demo`` sets it all."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["CLIENT", "DemoSettings", "demo_settings"]

CLIENT: Final = Path(__file__).parent.parent / "webui_adapter" / "client" / "dist" / "client.js"


class DemoSettings(BaseSettings):
    """Times are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="DEMO_", frozen=True, extra="ignore")

    data: Path = Field(description="directory of the database, the indexes and the uploads")
    secret: SecretStr = Field(description="signs visitors' cookies and the tokens for the gateway")
    broker: str = Field("redis://127.0.0.1:6379/1", description="Celery's broker and result backend")
    prefix: str = Field("eventbus-demo", description="first part of Celery's keys in that Redis")
    gateway_port: int = Field(8001, description="where the gateway listens, on the site's own host name")
    gateway: str = Field("", description="the gateway's whole address, if it is another")

    flower_port: int = Field(0, description="where Flower listens, on the site's own host name; 0: nowhere")
    trouble: bool = Field(False, description="let pages kill the worker; asked from the loopback only, all the same")

    pace: float = Field(0.0, ge=0, le=60, description="a document takes at least so long: something to watch")
    limit: int = Field(600, ge=1, le=5000, description="documents taken from the installed packages")
    batch: int = Field(8, ge=1, le=100, description="documents in one task; uploaded files have one each")

    max_files: int = Field(500, ge=1, description="files in one upload")
    max_file_bytes: int = Field(5 * 1_048_576, ge=1, description="one file")
    max_upload_bytes: int = Field(50 * 1_048_576, ge=1, description="one upload")


@cache
def demo_settings() -> DemoSettings:
    """The settings of this process, from its environment."""
    return DemoSettings()

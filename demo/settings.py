"""Settings of the demo's processes: environment variables ``DEMO_<NAME>``. ``python -m demo`` sets them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["CLIENT", "DemoSettings", "demo_settings"]

CLIENT: Final = Path(__file__).parent.parent / "webui_adapter" / "client" / "dist" / "client.js"


class DemoSettings(BaseSettings):
    """Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="DEMO_", frozen=True, extra="ignore")

    data: Path = Field(description="directory of the database, the indexes and the uploads")
    secret: SecretStr = Field(description="key that signs the cookies of visitors and the tokens for the gateway")
    broker: str = Field("redis://127.0.0.1:6379/1", description="Celery's broker and result backend")
    prefix: str = Field("eventbus-demo", description="prefix of Celery's keys in that Redis")
    gateway_port: int = Field(8001, description="port of the gateway, on the site's host")
    gateway: str = Field("", description="URL of the gateway; empty: the site's host and gateway_port")

    flower_port: int = Field(0, description="port of Flower, on the site's host; 0: no Flower")
    trouble: bool = Field(False, description="allow pages on the loopback interface to kill the worker")

    pace: float = Field(0.0, ge=0, le=60, description="minimum duration of a document")
    limit: int = Field(600, ge=1, le=5000, description="largest number of documents from the installed packages")
    batch: int = Field(8, ge=1, le=100, description="documents in one task; an uploaded file has its own task")

    max_files: int = Field(500, ge=1, description="largest number of files in one upload")
    max_file_bytes: int = Field(5 * 1_048_576, ge=1, description="largest size of one file")
    max_upload_bytes: int = Field(50 * 1_048_576, ge=1, description="largest size of one upload")


@cache
def demo_settings() -> DemoSettings:
    """The settings of this process, from its environment."""
    return DemoSettings()

"""The environment of the page, read once."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class StudioSettings(BaseSettings):
    """Every setting of the process. An empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[str, Field(validation_alias="STUDIO_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(validation_alias="STUDIO_PORT", ge=1, le=65535)] = 7861
    gateway_port: Annotated[int, Field(validation_alias="GATEWAY_PORT", ge=1, le=65535)] = 8000
    gateway_url_given: Annotated[
        str | None, Field(validation_alias="STUDIO_GATEWAY_URL", pattern=r"^https?://[^\s/]+(/[^\s]*)?$",
                          description="Where this process reaches the gateway; unset: this machine's, on GATEWAY_PORT.")
    ] = None
    public_url: Annotated[
        str | None, Field(validation_alias="GATEWAY_PUBLIC_URL", description="What `copy as curl` calls, where set.")
    ] = None
    hosts: Annotated[
        str,
        Field(validation_alias="STUDIO_HOSTS",
              description="Names, with commas, under which this page is opened, beside localhost and addresses; * is "
              "every name."),
    ] = ""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="STILLMOTION_LOG_LEVEL")
    ] = "INFO"

    @property
    def gateway_url(self) -> str:
        """Base URL of the public API, without a closing slash."""
        return (self.gateway_url_given or f"http://127.0.0.1:{self.gateway_port}").rstrip("/")

    @property
    def shown_url(self) -> str:
        """The API's address in what people copy."""
        return (self.public_url or self.gateway_url).rstrip("/")

    @property
    def called_as(self) -> frozenset[str]:
        """Names of this page's host, in lower case."""
        return frozenset(item.strip().lower() for item in self.hosts.split(",") if item.strip())

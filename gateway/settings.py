"""The environment of the gateway, read once."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasGenerator, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.auth.addresses import AddressRules, IPNetwork, is_loopback

MIB = 1024 * 1024
MAX_CONCURRENCY = 256


def _items(listed: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item.strip() for item in listed.split(",") if item.strip()) if isinstance(listed, str) else listed


def _networks(listed: str) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(item) for item in _items(listed))


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]
"""Of the environment: with commas."""


class GatewaySettings(BaseSettings):
    """Every setting of the process: GATEWAY_ and its name, where none is given. An empty variable counts as unset."""

    model_config = SettingsConfigDict(
        frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: f"GATEWAY_{name.upper()}"),
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="STILLMOTION_LOG_LEVEL")
    data_dir: Path = Field(default=Path("data"), validation_alias="STILLMOTION_DATA")
    internal_token: SecretStr | None = Field(default=None, validation_alias="STILLMOTION_INTERNAL_TOKEN")
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://user:password@host/database, shared by every gateway; unset: SQLite files.",
    )
    keys: Literal["auto", "required", "off"] = Field(
        default="auto", description="Whether callers need a key; auto: on every address but loopback.")
    secret: SecretStr | None = Field(
        default=None, min_length=16,
        description="What webhooks and links are signed with; unset: drawn once, and kept in the data folder. Set it "
        "to the same value where several machines work on one database.",
    )
    public_url: str | None = Field(
        default=None, pattern=r"^https?://[^\s/]+(/[^\s]*[^\s/])?$",
        description="Where callers reach this server, without a closing slash; webhooks name whole addresses then.",
    )
    studio_url: str | None = Field(
        default=None, pattern=r"^(https?://[^\s/]+(/[^\s]*)?|:[1-9][0-9]{0,4})$",
        description="Where / leads: the web page, or :7861, that port of the host that was called; unset: /docs.",
    )
    hosts: Listed = Field(
        default=(),
        description="Names, with commas, under which this server is called where no keys are needed, beside localhost, "
        "addresses and that of GATEWAY_PUBLIC_URL; *.example.com is every name below it, * every name.",
    )
    origins: Listed = Field(
        default=(), description="Origins, with commas, whose pages may call this server from a browser, such as "
        "https://app.example.com; * is every one.",
    )
    provenance: bool = Field(
        default=True, description="Videos say that they were made by AI: a signed C2PA manifest, and XMP metadata.")
    policy: bool = Field(
        default=False, description="Pictures and words are judged by the policy of the vl_service in the call that "
        "describes them: `refuse` fails the job or the call, `review` is a warning on it. Needs a Qwen-VL checkpoint.")
    c2pa_cert: Path | None = Field(
        default=None,
        description="PEM chain that signs videos, the signer's own certificate first; unset: one made here.",
    )
    c2pa_key: Path | None = Field(default=None, description="Its private key, PEM without a password.")
    c2pa_prompt: bool = Field(default=False, description="Manifests also tell the prompt.")
    producer: str = Field(
        default="Stillmotion", max_length=200,
        description="Whoever runs this server, as `ContentProducer` in the metadata.",
    )
    max_connections: int = Field(default=1000, ge=8, description="Open connections to this process.")
    max_waits: int = Field(
        default=200, ge=1,
        description="Event streams and waiting requests that one caller may have open: a key or, where none is needed, "
        "an address. All callers together leave a quarter of GATEWAY_MAX_CONNECTIONS free.",
    )
    max_incoming_bytes: int = Field(
        default=2048 * MIB, ge=32 * MIB,
        description="On disk at most, of all request bodies that have not arrived as a whole.",
    )
    link_s: float | None = Field(
        default=None, ge=1,
        description="Jobs show links that open their videos without a key, for at least so long; unset: none.",
    )
    keep_files_s: float | None = Field(
        default=None, gt=0,
        description="How long after a job's end its files are kept; unset: until the job is removed.",
    )
    keep_jobs_s: float | None = Field(
        default=None, gt=0,
        description="How long after a job's end its record is kept, and its files at most; unset: 30 days where there "
        "is no video (any more), else as long as the video.",
    )
    keep_conversations_s: float = Field(
        default=7 * 86400.0, gt=0, description="How long a conversation is kept after it was used last.")
    max_conversations: int = Field(
        default=100, ge=1, description="Conversations that are kept of an owner; the oldest make room.")
    max_conversation_bytes: int = Field(
        default=256 * MIB, ge=MIB,
        description="Of all conversations of an owner, pictures included; the oldest make room.",
    )
    artifacts_url: str | None = Field(
        default=None, pattern=r"^s3://[^/]+(/.*[^/])?$",
        description="s3://bucket/prefix keeps videos and pictures there; unset: in the data folder.",
    )
    s3_endpoint: str | None = Field(
        default=None, validation_alias="AWS_ENDPOINT_URL", description="Of a store that is not Amazon's own.")
    s3_region: str | None = Field(default=None, validation_alias="AWS_REGION")
    s3_key_id: str | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    s3_secret: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    webhook_hosts: Listed = Field(
        default=("*",),
        description="Hosts that webhooks are sent to, with commas; * is every public host, a comma alone none.",
    )
    webhook_http: bool = Field(default=False, description="Also send webhooks without TLS.")
    vl_port: int = Field(default=8001, validation_alias="VL_PORT", ge=0, le=65535)
    video_port: int = Field(default=8002, validation_alias="VIDEO_PORT", ge=0, le=65535)
    vl_url_given: str | None = Field(
        default=None, validation_alias="GATEWAY_VL_URL",
        description="One address, or several with commas; an http:// name is every address that it resolves to, ray:// "
        "what the directory there lists.")
    video_url_given: str | None = Field(
        default=None, validation_alias="GATEWAY_VIDEO_URL", description="As GATEWAY_VL_URL.")
    probe_s: float = Field(default=5.0, gt=0, le=60, description="Between two looks at each service.")
    abandon_after_s: float = Field(
        default=60.0, gt=0,
        description="A video service silent for so long has lost its renders to another one, if there is one.",
    )
    max_image_bytes: int = Field(default=20 * MIB, ge=1024, le=20 * MIB)
    max_image_pixels: int = Field(default=52_000_000, ge=4096)
    image_url_hosts: Listed = Field(
        default=(),
        description="Hosts that pictures are fetched from, with commas; *.example.com is every host below it. Empty: "
        "none are fetched.",
    )
    image_fetch_timeout_s: float = Field(default=15.0, gt=0, le=60)
    open_networks: Annotated[tuple[IPNetwork, ...], NoDecode, BeforeValidator(_networks)] = Field(
        default=(),
        description="Networks such as 10.1.0.0/16, with commas: not public, and still called for pictures and "
        "webhooks.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates to trust in place of the public ones.")
    max_files: int = Field(default=1000, ge=1, description="Uploaded files that an owner may keep.")
    stored_long_side: int = Field(default=2048, ge=256, le=4096, description="Larger pictures are reduced.")
    max_queued_jobs: int = Field(default=1000, validation_alias="GATEWAY_MAX_QUEUE", ge=1)
    concurrency_given: int | None = Field(
        default=None, validation_alias="GATEWAY_CONCURRENCY", ge=1, le=MAX_CONCURRENCY,
        description="Jobs carried on at once; unset: two for each video service (one renders, one is described).",
    )
    executor_id_given: str | None = Field(
        default=None, validation_alias="GATEWAY_EXECUTOR_ID", max_length=200, pattern=r"^[\w.@-]+$",
        description="One of its own for each process; the same over restarts, so that it finds its jobs at once.",
    )
    dead_after_s: float = Field(
        default=12.0, ge=1, le=60,
        description="An executor silent for so long counts as dead: others carry its jobs on.",
    )
    max_recoveries: int = Field(
        default=20, ge=1, description="A job that was at work at more crashes and restarts is taken to be their cause.")
    engine_poll_s: float = Field(
        default=0.5, ge=0.01, le=5,
        description="How often a free slot looks for jobs that other processes accepted, and for webhooks.",
    )
    max_wait_s: int = Field(default=300, ge=0, description="Cap of `Prefer: wait` and `?wait=`.")
    max_bytes_wait_s: int = Field(default=900, ge=0, description="Cap of `Accept: video/mp4`.")
    heartbeat_s: float = Field(default=15.0, gt=0, le=60)
    connect_timeout_s: float = Field(default=3.0, gt=0)
    describe_timeout_s: float = Field(default=150.0, gt=0)
    render_timeout_s: float = Field(default=3600.0, gt=0)
    job_deadline_s: float = Field(
        default=86400.0, gt=0,
        description="How long a job waits for a service, the database or the store that is away; then it fails.",
    )
    min_free_bytes: int = Field(default=256 * MIB, ge=0, description="Not ready below this free disk space.")
    reserve_bytes: int = Field(
        default=8 * MIB, ge=0, description="Held on disk, so that jobs can be canceled and removed where it is full.")

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("GATEWAY_DATABASE_URL begins with postgresql://; left out, it is SQLite files")
        try:
            make_url(url.get_secret_value() if url else "postgresql://")
        except (ValueError, ArgumentError):  # whose words may hold the password
            raise ValueError("GATEWAY_DATABASE_URL is to be postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
        return url

    @field_validator("data_dir")
    @classmethod
    def _is_text(cls, path: Path) -> Path:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError("the folder's name is no UTF-8, and databases are named in it") from None
        return path

    @property
    def called_as(self) -> tuple[str, ...]:
        """Names of this server beside localhost and addresses, in lower case; `*.` and `*` as patterns."""
        own = [] if self.public_url is None else [urlsplit(self.public_url).hostname or ""]
        return tuple(item.lower() for item in [*self.hosts, *own] if item)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Whose pages may call this server."""
        return tuple(item.lower().rstrip("/") for item in self.origins)

    @property
    def public_path(self) -> str:
        """The path below which callers see this server, such as `/video`; mostly empty."""
        return "" if self.public_url is None else urlsplit(self.public_url).path

    @property
    def image_url_rules(self) -> AddressRules:
        """Where pictures are fetched from."""
        return AddressRules(hosts=self.image_url_hosts, open_networks=self.open_networks)

    @property
    def webhook_rules(self) -> AddressRules:
        """Where webhooks are sent to."""
        schemes = frozenset({"https", "http"} if self.webhook_http else {"https"})
        return AddressRules(schemes=schemes, hosts=self.webhook_hosts, open_networks=self.open_networks)

    @property
    def keys_required(self) -> bool:
        """Whether every caller must show a key."""
        return self.keys == "required" or (self.keys == "auto" and not is_loopback(self.host))

    @property
    def executor_id(self) -> str:
        """Which executor this process is."""
        if self.executor_id_given is not None:
            return self.executor_id_given
        return "gateway-1" if self.database_url is None else f"{socket.gethostname()}-{self.port}"

    @property
    def state_dir(self) -> Path:
        """Folder of the two databases, the lock and the jobs' files."""
        return self.data_dir / "gateway"

    @property
    def jobs_database_file(self) -> Path:
        """The file of the gateway's tables, where they lie in one."""
        return self.state_dir / "jobs.sqlite"

    @property
    def jobs_database_url(self) -> str:
        """Where the gateway's tables lie."""
        return self._database_url(self.jobs_database_file.name)

    @property
    def engine_database_url(self) -> str:
        """Where the durable engine remembers: on Postgres the same database (its tables have their own schema)."""
        return self._database_url("dbos.sqlite")

    def _database_url(self, file: str) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        # Made of its parts: a folder's name may have the %, ? and # that mean something in a URL.
        return URL.create("sqlite", database=str((self.state_dir / file).absolute())).render_as_string()

    @property
    def vl_urls(self) -> tuple[str, ...]:
        """Base URLs of the vision-language services."""
        return _addresses(self.vl_url_given or f"http://127.0.0.1:{self.vl_port}")

    @property
    def video_urls(self) -> tuple[str, ...]:
        """Base URLs of the video services."""
        return _addresses(self.video_url_given or f"http://127.0.0.1:{self.video_port}")


def _addresses(listed: str) -> tuple[str, ...]:
    """The addresses of a comma-separated list, each once, without a closing slash: they are kept with the renders."""
    return tuple(dict.fromkeys(item.rstrip("/") for item in _items(listed)))

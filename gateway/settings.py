"""The environment of the gateway, read once."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.auth.addresses import AddressRules, IPNetwork

MIB = 1024 * 1024


class GatewaySettings(BaseSettings):
    """Every setting of the process. An empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[str, Field(validation_alias="GATEWAY_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(validation_alias="GATEWAY_PORT", ge=0, le=65535)] = 8000
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="STILLMOTION_LOG_LEVEL")
    ] = "INFO"
    data_dir: Annotated[Path, Field(validation_alias="STILLMOTION_DATA")] = Path("data")
    internal_token: Annotated[SecretStr | None, Field(validation_alias="STILLMOTION_INTERNAL_TOKEN")] = None

    database_url: Annotated[
        SecretStr | None,
        Field(
            validation_alias="GATEWAY_DATABASE_URL",
            description="postgresql://user:password@host/database, shared by every gateway; unset: SQLite files.",
        ),
    ] = None

    keys: Annotated[
        Literal["auto", "required", "off"],
        Field(
            validation_alias="GATEWAY_KEYS",
            description="Whether callers need a key; auto: on every address but loopback.",
        ),
    ] = "auto"

    secret: Annotated[
        SecretStr | None,
        Field(
            validation_alias="GATEWAY_SECRET", min_length=16,
            description="What webhooks and links are signed with; unset: drawn once, and kept in the data folder. Set "
            "it to the same value where several machines work on one database.",
        ),
    ] = None
    public_url: Annotated[
        str | None,
        Field(
            validation_alias="GATEWAY_PUBLIC_URL", pattern=r"^https?://[^\s/]+(/[^\s]*[^\s/])?$",
            description="Where callers reach this server, without a closing slash; webhooks name whole addresses then.",
        ),
    ] = None
    studio_url: Annotated[
        str | None,
        Field(
            validation_alias="GATEWAY_STUDIO_URL", pattern=r"^(https?://[^\s/]+(/[^\s]*)?|:[1-9][0-9]{0,4})$",
            description="Where / leads: the web page, or :7861, that port of the host that was called; unset: /docs.",
        ),
    ] = None
    hosts: Annotated[
        str,
        Field(
            validation_alias="GATEWAY_HOSTS",
            description="Names, with commas, under which this server is called where no keys are needed, beside "
            "localhost, addresses and that of GATEWAY_PUBLIC_URL; *.example.com is every name below it, * every name.",
        ),
    ] = ""
    origins: Annotated[
        str,
        Field(
            validation_alias="GATEWAY_ORIGINS",
            description="Origins, with commas, whose pages may call this server from a browser, such as "
            "https://app.example.com; * is every one.",
        ),
    ] = ""
    provenance: Annotated[
        bool,
        Field(
            validation_alias="GATEWAY_PROVENANCE",
            description="Videos say that they were made by AI: a signed C2PA manifest, and XMP metadata.",
        ),
    ] = True
    c2pa_cert: Annotated[
        Path | None,
        Field(validation_alias="GATEWAY_C2PA_CERT",
              description="PEM chain that signs videos, the signer's own certificate first; unset: one made here."),
    ] = None
    c2pa_key: Annotated[
        Path | None, Field(validation_alias="GATEWAY_C2PA_KEY", description="Its private key, PEM without a password.")
    ] = None
    c2pa_prompt: Annotated[
        bool, Field(validation_alias="GATEWAY_C2PA_PROMPT", description="Manifests also tell the prompt.")
    ] = False
    producer: Annotated[
        str,
        Field(validation_alias="GATEWAY_PRODUCER", max_length=200,
              description="Whoever runs this server, as `ContentProducer` in the metadata."),
    ] = "Stillmotion"
    max_connections: Annotated[
        int,
        Field(validation_alias="GATEWAY_MAX_CONNECTIONS", ge=8, description="Open connections to this process."),
    ] = 1000
    max_waits: Annotated[
        int,
        Field(
            validation_alias="GATEWAY_MAX_WAITS", ge=1,
            description="Event streams and waiting requests that one caller may have open: a key or, where none is "
            "needed, an address. All callers together leave a quarter of GATEWAY_MAX_CONNECTIONS free.",
        ),
    ] = 200
    max_incoming_bytes: Annotated[
        int,
        Field(
            validation_alias="GATEWAY_MAX_INCOMING_BYTES", ge=32 * MIB,
            description="On disk at most, of all request bodies that have not arrived as a whole.",
        ),
    ] = 2048 * MIB
    link_s: Annotated[
        float | None,
        Field(
            validation_alias="GATEWAY_LINK_S", ge=1,
            description="Jobs show links that open their videos without a key, for at least so long; unset: none.",
        ),
    ] = None
    keep_files_s: Annotated[
        float | None,
        Field(
            validation_alias="GATEWAY_KEEP_FILES_S", gt=0,
            description="How long after a job's end its files are kept; unset: until the job is removed.",
        ),
    ] = None
    keep_jobs_s: Annotated[
        float | None,
        Field(
            validation_alias="GATEWAY_KEEP_JOBS_S", gt=0,
            description="How long after a job's end its record is kept, and its files at most; unset: 30 days where "
            "there is no video (any more), else as long as the video.",
        ),
    ] = None
    keep_conversations_s: Annotated[
        float,
        Field(
            validation_alias="GATEWAY_KEEP_CONVERSATIONS_S", gt=0,
            description="How long a conversation is kept after it was used last.",
        ),
    ] = 7 * 86400.0
    max_conversations: Annotated[
        int,
        Field(validation_alias="GATEWAY_MAX_CONVERSATIONS", ge=1,
              description="Conversations that are kept of an owner; the oldest make room."),
    ] = 100
    max_conversation_bytes: Annotated[
        int,
        Field(validation_alias="GATEWAY_MAX_CONVERSATION_BYTES", ge=MIB,
              description="Of all conversations of an owner, pictures included; the oldest make room."),
    ] = 256 * MIB
    artifacts_url: Annotated[
        str | None,
        Field(
            validation_alias="GATEWAY_ARTIFACTS_URL", pattern=r"^s3://[^/]+(/.*[^/])?$",
            description="s3://bucket/prefix keeps videos and pictures there; unset: in the data folder.",
        ),
    ] = None
    s3_endpoint: Annotated[
        str | None, Field(validation_alias="AWS_ENDPOINT_URL", description="Of a store that is not Amazon's own.")
    ] = None
    s3_region: Annotated[str | None, Field(validation_alias="AWS_REGION")] = None
    s3_key_id: Annotated[str | None, Field(validation_alias="AWS_ACCESS_KEY_ID")] = None
    s3_secret: Annotated[SecretStr | None, Field(validation_alias="AWS_SECRET_ACCESS_KEY")] = None
    webhook_hosts: Annotated[
        str,
        Field(
            validation_alias="GATEWAY_WEBHOOK_HOSTS",
            description="Hosts that webhooks are sent to, with commas; * is every public host. Empty: none are sent.",
        ),
    ] = "*"
    webhook_http: Annotated[
        bool, Field(validation_alias="GATEWAY_WEBHOOK_HTTP", description="Also send webhooks without TLS.")
    ] = False

    vl_port: Annotated[int, Field(validation_alias="VL_PORT", ge=0, le=65535)] = 8001
    video_port: Annotated[int, Field(validation_alias="VIDEO_PORT", ge=0, le=65535)] = 8002
    vl_url_given: Annotated[
        str | None, Field(validation_alias="GATEWAY_VL_URL", description="One address, or several with commas.")
    ] = None
    video_url_given: Annotated[
        str | None, Field(validation_alias="GATEWAY_VIDEO_URL", description="One address, or several with commas.")
    ] = None
    probe_s: Annotated[
        float, Field(validation_alias="GATEWAY_PROBE_S", gt=0, le=60, description="Between two looks at each service.")
    ] = 5.0
    abandon_after_s: Annotated[
        float,
        Field(
            validation_alias="GATEWAY_ABANDON_AFTER_S", gt=0,
            description="A video service silent for so long has lost its renders to another one, if there is one.",
        ),
    ] = 60.0

    max_image_bytes: Annotated[int, Field(validation_alias="GATEWAY_MAX_IMAGE_BYTES", ge=1024, le=20 * MIB)] = 20 * MIB
    max_image_pixels: Annotated[int, Field(validation_alias="GATEWAY_MAX_IMAGE_PIXELS", ge=4096)] = 52_000_000
    image_url_hosts: Annotated[
        str,
        Field(
            validation_alias="GATEWAY_IMAGE_URL_HOSTS",
            description="Hosts that pictures are fetched from, with commas; *.example.com is every host below it. "
            "Empty: none are fetched.",
        ),
    ] = ""
    image_fetch_timeout_s: Annotated[float, Field(validation_alias="GATEWAY_IMAGE_FETCH_TIMEOUT_S", gt=0, le=60)] = 15.0
    open_networks: Annotated[
        str,
        Field(
            validation_alias="GATEWAY_OPEN_NETWORKS",
            description="Networks such as 10.1.0.0/16, with commas: not public, and still called for pictures and "
            "webhooks.",
        ),
    ] = ""
    ca_file: Annotated[
        Path | None,
        Field(validation_alias="GATEWAY_CA_FILE", description="Certificates to trust in place of the public ones."),
    ] = None
    max_files: Annotated[
        int, Field(validation_alias="GATEWAY_MAX_FILES", ge=1, description="Uploaded files that an owner may keep.")
    ] = 1000
    stored_long_side: Annotated[
        int,
        Field(validation_alias="GATEWAY_STORED_LONG_SIDE", ge=256, le=4096, description="Larger pictures are reduced."),
    ] = 2048

    max_queued_jobs: Annotated[int, Field(validation_alias="GATEWAY_MAX_QUEUE", ge=1)] = 1000
    concurrency_given: Annotated[
        int | None,
        Field(
            validation_alias="GATEWAY_CONCURRENCY", ge=1, le=256,
            description="Jobs carried on at once; unset: two for each video service (one renders, one is described).",
        ),
    ] = None
    executor_id_given: Annotated[
        str | None,
        Field(
            validation_alias="GATEWAY_EXECUTOR_ID", max_length=200, pattern=r"^[\w.@-]+$",
            description="One of its own for each process; the same over restarts, so that it finds its jobs at once.",
        ),
    ] = None
    dead_after_s: Annotated[
        float,
        Field(validation_alias="GATEWAY_DEAD_AFTER_S", ge=1, le=60,
              description="An executor silent for so long counts as dead: others carry its jobs on."),
    ] = 12.0
    max_recoveries: Annotated[
        int,
        Field(validation_alias="GATEWAY_MAX_RECOVERIES", ge=1,
              description="A job that was at work at more crashes and restarts is taken to be their cause."),
    ] = 20
    engine_poll_s: Annotated[
        float,
        Field(validation_alias="GATEWAY_ENGINE_POLL_S", ge=0.01, le=5,
              description="How often a free slot looks for jobs that other processes accepted, and for webhooks."),
    ] = 0.5

    max_wait_s: Annotated[
        int, Field(validation_alias="GATEWAY_MAX_WAIT_S", ge=0, description="Cap of `Prefer: wait` and `?wait=`.")
    ] = 300
    max_bytes_wait_s: Annotated[
        int, Field(validation_alias="GATEWAY_MAX_BYTES_WAIT_S", ge=0, description="Cap of `Accept: video/mp4`.")
    ] = 900
    heartbeat_s: Annotated[float, Field(validation_alias="GATEWAY_HEARTBEAT_S", gt=0, le=60)] = 15.0

    connect_timeout_s: Annotated[float, Field(validation_alias="GATEWAY_CONNECT_TIMEOUT_S", gt=0)] = 3.0
    describe_timeout_s: Annotated[float, Field(validation_alias="GATEWAY_DESCRIBE_TIMEOUT_S", gt=0)] = 150.0
    render_timeout_s: Annotated[float, Field(validation_alias="GATEWAY_RENDER_TIMEOUT_S", gt=0)] = 3600.0
    job_deadline_s: Annotated[
        float,
        Field(
            validation_alias="GATEWAY_JOB_DEADLINE_S", gt=0,
            description="How long a job waits for a service, the database or the store that is away; then it fails.",
        ),
    ] = 86400.0
    min_free_bytes: Annotated[
        int, Field(validation_alias="GATEWAY_MIN_FREE_BYTES", ge=0, description="Not ready below this free disk space.")
    ] = 256 * MIB

    reserve_bytes: Annotated[
        int,
        Field(
            validation_alias="GATEWAY_RESERVE_BYTES", ge=0,
            description="Held on disk, so that jobs can be canceled and removed where it is full.",
        ),
    ] = 8 * MIB

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

    @field_validator("open_networks")
    @classmethod
    def _are_networks(cls, listed: str) -> str:
        for item in _items(listed):
            ipaddress.ip_network(item)
        return listed

    @property
    def called_as(self) -> tuple[str, ...]:
        """Names of this server beside localhost and addresses, in lower case; `*.` and `*` as patterns."""
        own = [] if self.public_url is None else [urlsplit(self.public_url).hostname or ""]
        return tuple(item.lower() for item in [*_items(self.hosts), *own] if item)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Whose pages may call this server."""
        return tuple(item.lower().rstrip("/") for item in _items(self.origins))

    @property
    def public_path(self) -> str:
        """The path below which callers see this server, such as `/video`; mostly empty."""
        return "" if self.public_url is None else urlsplit(self.public_url).path

    @property
    def image_url_rules(self) -> AddressRules:
        """Where pictures are fetched from."""
        return AddressRules(hosts=tuple(_items(self.image_url_hosts)), open_networks=self.networks_opened)

    @property
    def webhook_rules(self) -> AddressRules:
        """Where webhooks are sent to."""
        return AddressRules(
            schemes=frozenset({"https", "http"} if self.webhook_http else {"https"}),
            hosts=tuple(_items(self.webhook_hosts)), open_networks=self.networks_opened,
        )

    @property
    def networks_opened(self) -> tuple[IPNetwork, ...]:
        """Networks that are not public and still may be called."""
        return tuple(ipaddress.ip_network(item) for item in _items(self.open_networks))

    @property
    def keys_required(self) -> bool:
        """Whether every caller must show a key."""
        return self.keys == "required" or (self.keys == "auto" and not _is_loopback(self.host))

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

    @property
    def concurrency(self) -> int:
        """Jobs that this process carries on at once."""
        return self.concurrency_given or 2 * len(self.video_urls)


def _addresses(listed: str) -> tuple[str, ...]:
    """The addresses of a comma-separated list, each once, without a closing slash: they are kept with the renders."""
    return tuple(dict.fromkeys(item.rstrip("/") for item in _items(listed)))


def _items(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

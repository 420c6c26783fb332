"""The command line's side of the public API: submit a picture, follow its job, fetch the video, cancel."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError

from contracts.errors import Problem
from contracts.jobs import TERMINAL_JOB_STATES, GenerateOptions, Job
from gateway.cli.client.output import written

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_QUIET_S = 90.0  # the server says something at least every 60 s, if only a comment
_RETRY_PAUSE_S = 1.0
_MAX_RETRIES = 10


class GatewayFailure(Exception):
    """The gateway refused, failed or cannot be reached; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A gateway by its base URL, and the key that it wants, if it wants one."""

    url: str
    key: str | None = field(default=None, repr=False)


class JobClient:
    """Talks to one gateway; make it with `job_client`."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def submit(self, options: GenerateOptions, image: Path | None) -> Job:
        """Start a job.

        Raises:
            GatewayFailure: refused or unreachable.
        """
        fields = options.model_dump(mode="json", exclude_unset=True)
        if image is None:
            request = self._http.build_request("POST", "/generate", json=fields)
        else:
            name = image.name.encode(errors="replace").decode()  # a file's name need not be text
            files = {"image": (name, await asyncio.to_thread(image.read_bytes), "application/octet-stream")}
            form = {name: str(value) for name, value in fields.items()}
            request = self._http.build_request("POST", "/generate", data=form, files=files)
        response = await self._send(request)
        return _job(response.content, response.url)

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """Yield the job each time it changes, the finished one last; reconnects when the stream breaks.

        Raises:
            GatewayFailure: the gateway went away for good.
        """
        last_event_id = ""
        failures = 0
        while job.state not in TERMINAL_JOB_STATES:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            try:
                where = self._at(job.urls.events)
                async with self._http.stream("GET", where, headers=headers, timeout=_QUIET_S) as response:
                    await _refuse_problem(response)
                    if response.status_code != httpx.codes.NO_CONTENT:  # 204: nothing after the last event
                        async for event in EventSource(response).aiter_sse():
                            last_event_id, failures = event.id or last_event_id, 0
                            if not event.data:  # httpx_sse makes an event of a heartbeat that follows an id
                                continue
                            job = _job(event.data, job.urls.events)
                            yield job
                job = await self.look(job)  # the stream's end is no proof of the job's
            except (httpx.TransportError, SSEError) as error:
                failures += 1
                if failures > _MAX_RETRIES:
                    raise _unreachable(self._url, error) from error
                await asyncio.sleep(_RETRY_PAUSE_S)
        yield job

    async def look(self, job: Job) -> Job:
        """The job as it stands now."""
        response = await self._send(self._http.build_request("GET", self._at(job.urls.self)))
        return _job(response.content, response.url)

    async def cancel(self, job: Job) -> None:
        """Ask the gateway to give the job up."""
        await self._send(self._http.build_request("POST", self._at(job.urls.cancel)))

    async def download(self, job: Job, output: Path) -> None:
        """Fetch the finished video; `output` appears complete or not at all.

        Raises:
            GatewayFailure: the transfer broke, or the bytes are not those the job names.
        """
        assert job.urls.content is not None
        assert job.video is not None
        where = self._at(job.urls.content)
        try:
            await self._receive(where, job.video.sha256, output)
        except OSError as error:
            raise GatewayFailure(
                f"{output} cannot be written: {error.strerror or type(error).__name__}. The video is there still: "
                f"curl -o video.mp4 {where}"
            ) from error
        except httpx.TransportError as error:
            raise GatewayFailure(f"{_unreachable(self._url, error)} The video is at {where}") from error

    async def _receive(self, where: httpx.URL, sha256: str, output: Path) -> None:
        digest = hashlib.sha256()
        async with written(output) as stream:
            async with self._http.stream("GET", where) as response:
                await _refuse_problem(response)
                async for chunk in response.aiter_bytes():
                    digest.update(chunk)
                    await asyncio.to_thread(stream.write, chunk)  # a pipe may be full
            if digest.hexdigest() != sha256:
                raise GatewayFailure("The video arrived damaged; try again.")
            await asyncio.to_thread(stream.flush)

    def _at(self, path: str) -> httpx.URL:
        """An address that the gateway named: it begins at its host, and may have a prefix that a proxy takes away."""
        return httpx.URL(self._url).join(path)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise _unreachable(self._url, error) from error
        await _refuse_problem(response)
        return response


def server_url(text: str) -> str:
    """The base URL that somebody meant by `text`, such as `localhost:8000`.

    Raises:
        GatewayFailure: it is no address of a server.
    """
    plain = text.strip()
    try:
        url = httpx.URL(plain if "://" in plain else f"http://{plain}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535 or url.query:
        raise GatewayFailure(f"{text!r} is no address of a server: write http://HOST:PORT.")
    return str(url.copy_with(fragment=None)).rstrip("/")


@asynccontextmanager
async def job_client(server: Server) -> AsyncIterator[JobClient]:
    """Open a client for the gateway; a proxy of the environment is used for other machines only.

    Raises:
        GatewayFailure: the key is none.
    """
    local = (urlsplit(server.url).hostname or "") in _LOCAL
    key = (server.key or "").strip()  # a file that holds it ends in a line break
    if not key.isascii() or not key.isprintable():
        raise GatewayFailure("The key is none of this server: it has characters that no key has.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60.0, trust_env=not local) as http:
        yield JobClient(http, server.url.rstrip("/"))


def problem_sentence(problem: Problem) -> str:
    """A problem as one sentence for a person: what happened and what to do."""
    detail = problem.detail.rstrip()
    return detail if detail.endswith((".", "!", "?")) else f"{detail}."


def _job(body: str | bytes, where: object) -> Job:
    try:
        return Job.model_validate_json(body)
    except ValidationError as error:
        raise GatewayFailure(f"{where} answered something that is not a Stillmotion job.") from error


async def _refuse_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(await response.aread())
    except ValidationError:
        raise GatewayFailure(f"{response.url} answered {response.status_code}, and not as Stillmotion does.") from None
    raise GatewayFailure(problem_sentence(problem))


def _unreachable(url: str, error: Exception) -> GatewayFailure:
    if isinstance(error, httpx.ConnectError):
        return GatewayFailure(f"Nothing answers at {url}. Start it with `stillmotion serve`, or name another --url.")
    return GatewayFailure(f"The connection to {url} broke ({type(error).__name__}); see the server's log.")

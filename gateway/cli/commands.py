"""The commands and their options; each hands over to the module of its name."""

import importlib.util
import os
import sys
from collections.abc import Callable, Coroutine
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from contracts.describe import Language
from contracts.jobs import Enhance, GenerateOptions
from gateway.cli import keys
from gateway.cli.client.generate import generate
from gateway.cli.client.jobs import GatewayFailure, Server, server_url
from gateway.cli.client.output import OutputUnusable, check_output, is_standard_output, output_path
from gateway.cli.client.words import LastingConsole, typed
from gateway.cli.convert import convert, warmup
from gateway.cli.engines import engines
from gateway.cli.machine.doctor import doctor
from gateway.cli.machine.pull import PullFailed, ask_hub, describe, pull, pulled_before
from gateway.cli.serving.demo import default_picture, demo
from gateway.cli.serving.interrupts import Interrupted, run_interruptible
from gateway.cli.serving.serve import LogFormat, serve
from gateway.cli.serving.stack import ServiceName, StackError, read_settings, served_names, service_specs
from web.command import run_command, say

app = typer.Typer(
    name="stillmotion", no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False,
    help="Any picture in, a moving one out.",
)
models_app = typer.Typer(no_args_is_help=True, help="Get models onto this machine.")
app.add_typer(keys.app, name="keys")
app.add_typer(models_app, name="models")

PromptOption = Annotated[str | None, typer.Option(help="What should happen; left out, it is written from the picture.")]
SizeOption = Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, such as 256x192.")]
SecondsOption = Annotated[float | None, typer.Option(help="Length of the video.")]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps.")]
KeyOption = Annotated[str | None, typer.Option(envvar="STILLMOTION_KEY", help="Where the server wants one.")]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", parser=output_path, metavar="PATH", help="Where the MP4 goes; -: standard output."),
]
SeedOption = Annotated[int | None, typer.Option(help="Same seed, same video.")]


def main() -> None:
    """Entry point of the `stillmotion` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # words in any script, on a terminal that may know ASCII alone
    run_command(app)


@app.command("serve")
def serve_command(
    service: Annotated[ServiceName | None, typer.Argument(help="Only this one; left out, all of them.")] = None,
    log_format: Annotated[LogFormat, typer.Option(help="auto: readable on a terminal, else JSON lines.")] = "auto",
    on_ray: Annotated[bool, typer.Option("--ray", help="The model services as Ray Serve replicas, one a GPU.")] = False,
) -> None:
    """Run the services in the foreground; Ctrl-C ends them."""
    console = Console(stderr=True)
    if (on_ray or service == "ray") and importlib.util.find_spec("ray") is None:
        _fail("Ray needs its own packages: pip install 'stillmotion[ray]'.")

    async def work() -> None:
        settings = read_settings()
        await serve(console, settings, (service,) if service else served_names(settings, on_ray=on_ray), log_format)

    try:
        _run(work)
    except Interrupted:
        console.print("Stopped.")


@app.command("studio")
def studio_command(
    log_format: Annotated[LogFormat, typer.Option(help="auto: readable on a terminal, else JSON lines.")] = "auto",
) -> None:
    """Serve the web page alone, before a gateway that runs elsewhere (STUDIO_GATEWAY_URL); `serve` starts it too."""
    if importlib.util.find_spec("gradio") is None:
        _fail("The page needs its own packages: pip install 'stillmotion[studio]'.")
    serve_command("studio", log_format)


@app.command(
    "engines", add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def engines_command(context: typer.Context) -> None:
    """Build, list or verify engines of the video model or what `--model` names: `engines build --help` says more."""
    raise typer.Exit(engines(context.args, Console(stderr=True)))


@app.command(
    "convert", add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def convert_command(context: typer.Context) -> None:
    """Convert published files to a folder for VIDEO_MODEL: `convert --help` says more."""
    raise typer.Exit(convert(context.args, Console(stderr=True)))


@app.command(
    "warmup", add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def warmup_command(context: typer.Context) -> None:
    """Load the video models and render one clip of each, for images and before a service starts: `warmup --help`."""
    raise typer.Exit(warmup(context.args, Console(stderr=True)))


@app.command("migrate")
def migrate_command() -> None:
    """Bring the gateway's database (GATEWAY_DATABASE_URL) to this version, as each gateway does when it starts."""
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.cli.migrate import migrate  # brings the engine, a second of imports
    from gateway.settings import GatewaySettings

    try:
        say(f"Ready for this version: {migrate(GatewaySettings())}")
    except ValidationError as error:
        _fail(f"{error.errors()[0]['loc'][0]} is not usable: {error.errors()[0]['msg']}.")
    except (SQLAlchemyError, OSError) as error:
        _fail(f"The database cannot be used now: {error}.")


@app.command("doctor")
def doctor_command(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Look this machine over: GPU, memory, disk, packages, models, ports, and what will be slow and why."""
    try:
        settings = read_settings()
    except StackError as error:
        _fail(str(error))
    raise typer.Exit(doctor(settings, Console(), as_json=as_json))


@models_app.command("pull")
def pull_command(
    model: Annotated[str, typer.Argument(help="Its id on the hub, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers.")],
    to: Annotated[Path | None, typer.Option(help="A folder of its own; left out, the hub's cache.")] = None,
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="With --to: ask nobody where an earlier pull has left it whole.")
    ] = False,
) -> None:
    """Download a model, or go on with it, and check every file; HF_ENDPOINT names a mirror."""
    console = Console(stderr=True)
    if if_missing and to is not None and pulled_before(model, revision, to):
        console.print(Text.assemble("There already: ", (str(to), "bold green")))
        return
    try:
        found = ask_hub(model, revision)
        describe(found, console)
        if not yes and not typer.confirm("Download it?", err=True):
            raise typer.Exit(1)
        folder = pull(found, to, console)
    except PullFailed as failure:
        _fail(str(failure))
    console.print(Text.assemble("Whole and checked: ", (str(folder), "bold green")))


@app.command("verify")
def verify_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="An MP4.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how a video was made, by its own signed manifest: exit status 0 valid, 1 changed since, 2 no manifest."""
    from gateway.cli.verify import verify  # brings cryptography

    raise typer.Exit(verify(file, Console(), as_json=as_json))


@app.command("generate")
def generate_command(
    image: Annotated[Path | None, typer.Argument(help="Picture to move; left out, the prompt alone is used.")] = None,
    extend_from: Annotated[str | None, typer.Option(
        metavar="JOB", help="Instead of a picture: go on from a video of yours; the file has both parts.")] = None,
    prompt: PromptOption = None,
    instruction: Annotated[str | None, typer.Option(help="How the prompt should be written.")] = None,
    enhance: Annotated[Enhance | None, typer.Option(help="Whether what is seen enriches the prompt.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What should not be seen.")] = None,
    model: Annotated[str | None, typer.Option(help="One of `GET /v1/models`.")] = None,
    size: SizeOption = None,
    seconds: SecondsOption = None,
    num_frames: Annotated[int | None, typer.Option(help="Instead of --seconds.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second.")] = None,
    steps: StepsOption = None,
    sampler: Annotated[str | None, typer.Option(help="How to denoise.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How strictly to follow the prompt.")] = None,
    seed: SeedOption = None,
    language: Annotated[Language | None, typer.Option(help="Of what is written.")] = None,
    output: OutputOption = "out/video.mp4",  # pyright: ignore[reportArgumentType] - the parser makes it a path
    url: Annotated[str | None, typer.Option(help="Gateway; default: this machine's, on GATEWAY_PORT.")] = None,
    key: KeyOption = None,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the video.")] = 3600.0,
) -> None:
    """Make a video through a running gateway; Ctrl-C cancels the job."""
    console = LastingConsole(stderr=is_standard_output(output))
    options = _options(
        extend_from=extend_from, prompt=prompt, instruction=instruction, enhance=enhance,
        negative_prompt=negative_prompt, model=model, size=size, seconds=seconds, num_frames=num_frames, fps=fps,
        steps=steps, sampler=sampler, guidance_scale=guidance_scale, seed=seed, language=language,
    )
    _refuse_missing(image)
    _refuse_unusable(output, image)

    async def work() -> None:
        where = server_url(url or service_specs(read_settings(), ("gateway",))[0].url)
        await generate(console, Server(url=where, key=key), options, image, output, timeout)
        console.print(Text.assemble("Wrote ", (str(output), "bold green")))

    _end_with_signal(work)


@app.command("demo")
def demo_command(
    image: Annotated[Path | None, typer.Option(help="Picture to move; left out, a photograph of a cat.")] = None,
    prompt: PromptOption = None,
    size: SizeOption = None,
    seconds: SecondsOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    key: KeyOption = None,
    output: OutputOption = "out/demo.mp4",  # pyright: ignore[reportArgumentType] - the parser makes it a path
    studio: Annotated[bool, typer.Option("--studio", help="Then keep everything running, with the web page.")] = False,
) -> None:
    """From nothing to a video: start what is not running, send a picture, save the MP4, stop what was started."""
    console = LastingConsole(stderr=is_standard_output(output))
    options = _options(prompt=prompt, size=size, seconds=seconds, steps=steps, seed=seed)
    _refuse_missing(image)
    _refuse_unusable(output, image)
    _end_with_signal(lambda: demo(console, read_settings(), options, image or default_picture(), output, key, studio))


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        run_interruptible(work)
    except (StackError, GatewayFailure) as failure:
        _fail(str(failure))


def _end_with_signal(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        _run(work)
    except Interrupted as interrupted:
        Console(stderr=True).print("Interrupted.")
        raise typer.Exit(interrupted.exit_code) from None


def _options(**given: object) -> GenerateOptions:
    given = {
        name: typed(value) if isinstance(value, str) else value for name, value in given.items() if value is not None}
    try:
        return GenerateOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "the options"
        _fail(f"{option} {first['input']!r} is not usable: {first['msg']}.")


def _refuse_missing(image: Path | None) -> None:
    if image is not None and not image.is_file() and not image.is_fifo():
        what = "is a folder, not a picture" if image.is_dir() else "is no file" if image.exists() else "does not exist"
        _fail(f"{image} {what}. Name a picture, such as a JPEG or PNG file.")
    if image is not None and not os.access(image, os.R_OK):
        _fail(f"{image} cannot be read: permission denied.")


def _refuse_unusable(output: Path, image: Path | None) -> None:
    if image is not None and image.is_file() and output.is_file() and output.samefile(image):
        _fail(f"{output} is the picture itself: name another file for the video.")
    try:
        check_output(output)
    except OutputUnusable as refusal:
        _fail(str(refusal))


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
    raise typer.Exit(1)

"""A job as HTML: how far it is, and what came of it."""

from collections.abc import Callable
from html import escape

from contracts.jobs import Job
from studio.snippets import as_curl, as_python
from studio.words import Words

_RENDER = "render."


def idle(words: Words) -> str:
    """Before there is a job."""
    return (f'<div class="sm-idle"><div class="sm-mark" aria-hidden="true"></div><p><strong>'
            f'{escape(words["nothing_yet"])}</strong></p><p>{escape(words["nothing_yet_how"])}</p></div>')


def notice(sentence: str, kind: str = "bad") -> str:
    """One sentence that has to be read."""
    return f'<p class="sm-notice sm-{kind}" role="alert">{escape(sentence)}</p>'


def progress(job: Job, words: Words, outage: str | None = None) -> str:
    """Where the job stands, with a bar."""
    now = job.progress
    percent = round(100 * now.fraction)
    said = [escape(headline(job, words))]
    if now.stage == "rendering" and now.num_steps:
        said.append(escape(words("step_of", step=now.step, steps=now.num_steps)))
    if now.eta_s is not None:
        said.append(escape(words("eta", time=clock(now.eta_s))))
    waiting = words("waiting_for", what=now.waiting_for) + f" {now.waiting_detail or ''}" if now.waiting_for else ""
    return (
        f'<div class="sm-watch" data-job="{escape(job.id)}" data-state="{job.state}">'
        f'<div class="sm-said" role="status">{" · ".join(said)}</div>'
        f'<div class="sm-bar" role="progressbar" aria-label="{escape(headline(job, words))}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{percent}"><span style="width:{percent}%"></span></div>'
        f"{_glimpse(job, words)}{notice(waiting, 'wait') if waiting else ''}{notice(outage) if outage else ''}</div>"
    )


def _glimpse(job: Job, words: Words) -> str:
    """What is becoming of it, as far as that can be seen yet."""
    seen, wanted = job.progress.preview, job.parameters
    if seen is None or not seen.startswith("data:image/jpeg;base64,"):
        return ""
    return (f'<img class="sm-glimpse" src="{escape(seen)}" alt="{escape(words["glimpse"])}" '
            f'style="aspect-ratio:{wanted.width}/{wanted.height}">')


def headline(job: Job, words: Words) -> str:
    """The state in words, with the place in the queue."""
    if job.state == "queued":
        ahead = job.progress.queue_position
        if ahead is None:
            return words["queued"]
        return words["queued_first"] if ahead == 0 else words("queued_at", ahead=ahead)
    if job.state == "running":
        return words[f"stage_{job.progress.stage or 'describing'}"]
    return words[job.state]


def ended(job: Job, words: Words, url: str) -> str:
    """What came of it: the video beside its picture with all that is known of it, or the reason why there is none."""
    if job.state == "completed":
        return _result(job, words, url)
    if job.state == "failed" and job.error is not None:
        return notice(f"{words['failed']}: {job.error.detail}")
    return notice(words["was_canceled"] if job.state == "canceled" else words[job.state], "wait")


def _result(job: Job, words: Words, url: str) -> str:
    media, wanted = f"/media/{escape(job.id)}", job.parameters
    shape = f"aspect-ratio:{wanted.width}/{wanted.height}"
    # Without a picture the figure removes itself: whether there was one is for the gateway to say.
    before, after = escape(words["before"]), escape(words["after"])
    return (
        f'<div class="sm-result" data-job="{escape(job.id)}"><div class="sm-pair">'
        f'<figure class="sm-before"><img src="{media}/input" alt="{before}" style="{shape}" '
        f'onerror="this.closest(\'figure\').remove()"><figcaption>{before}</figcaption></figure>'
        f'<figure><video src="{media}/video" poster="{media}/thumbnail" style="{shape}" controls autoplay muted loop '
        f'playsinline aria-label="{after}"></video><figcaption>{after}</figcaption></figure></div>'
        f"{_take_away(job, words, url)}{_prompt(job, words)}{_warnings(job)}"
        f'<div class="sm-two">{times(job, words)}{parameters(job, words)}</div></div>'
    )


def _take_away(job: Job, words: Words, url: str) -> str:
    """The file, and the call that makes it again; page.js copies the one that goes with the picture, or without."""
    def button(name: str, call: Callable[..., str]) -> str:
        calls = "".join(
            f' data-copy-{kind}="{escape(call(job, url, with_picture=kind == "picture"))}"'
            for kind in ("picture", "words"))
        return (f'<button type="button" class="sm-button" data-done="{escape(words["copied"])}"{calls}>'
                f"{escape(words[name])}</button>")

    return (
        f'<div class="sm-take"><a class="sm-button" href="/media/{escape(job.id)}/video" '
        f'download="{escape(job.id)}.mp4">{escape(words["download"])}</a>'
        f'{button("copy_curl", as_curl)}{button("copy_python", as_python)}</div>'
    )


def _prompt(job: Job, words: Words) -> str:
    wrote = job.original_prompt
    differs = wrote and wrote != job.actual_prompt
    own = f'<p class="sm-wrote">{escape(words["you_wrote"])}: {escape(wrote or "")}</p>' if differs else ""
    return f'<blockquote class="sm-prompt">{escape(job.actual_prompt or "")}</blockquote>{own}'


def _warnings(job: Job) -> str:
    return "".join(notice(warning, "wait") for warning in job.warnings)


def times(job: Job, words: Words) -> str:
    """Seconds of each stage as bars, the longest the widest; the stages of the render in place of their sum."""
    sums = {"total"} | ({"rendering"} if any(name.startswith(_RENDER) for name in job.timings) else set())
    spent = {name.removeprefix(_RENDER): seconds for name, seconds in job.timings.items() if name not in sums}
    longest = max(spent.values(), default=0) or 1
    rows = "".join(
        f'<tr><th scope="row">{escape(stage_name(name, words))}</th><td class="sm-grow"><span class="sm-time" '
        f'style="width:{max(1, round(100 * seconds / longest))}%"></span></td>'
        f'<td class="sm-num">{escape(words("seconds", seconds=f"{seconds:.2f}"))}</td></tr>'
        for name, seconds in spent.items()
    )
    return f'<table class="sm-times"><caption>{escape(words["times"])}</caption><tbody>{rows}</tbody></table>'


def stage_name(name: str, words: Words) -> str:
    """A stage in words; one that this page does not know by its own name."""
    return words.texts.get(f"stage_{name}", name)


def parameters(job: Job, words: Words) -> str:
    """Every parameter that was in force."""
    wanted = job.parameters
    seconds = wanted.num_frames / wanted.fps
    shown = {
        "model": wanted.model, "size": f"{wanted.width} × {wanted.height}",
        "frames": f"{wanted.num_frames} ({words('seconds', seconds=f'{seconds:.1f}')}, {wanted.fps} fps)",
        "steps": wanted.steps, "sampler": wanted.sampler, "guidance": wanted.guidance_scale,
        "guidance_2": wanted.guidance_scale_2, "seed": wanted.seed,
        "loras": ", ".join(f"{lora.id} × {lora.scale:g}" for lora in wanted.loras) or None,
        "engine": wanted.engine, "revision": (wanted.revision or "")[:16] or None,
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(words[name])}</th><td>{escape(str(value))}</td></tr>'
        for name, value in shown.items() if value is not None
    )
    return f'<table class="sm-params"><caption>{escape(words["parameters"])}</caption><tbody>{rows}</tbody></table>'


def clock(seconds: float) -> str:
    """A length of time, such as 8 s or 2:05."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d}"

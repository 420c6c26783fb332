"""The visitor's own jobs as cards, and the place where two of them play in step."""

from collections.abc import Sequence
from html import escape

from contracts.jobs import TERMINAL_JOB_STATES, Job
from studio.views.job import headline
from studio.words import Words

ON_LOAD = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-delete]");
  if (!button) return;
  if (button.dataset.sure !== "yes") {
    button.dataset.sure = "yes";
    button.textContent = button.dataset.ask;
    return;
  }
  trigger("click", {job: button.dataset.delete});
});
"""
"""A press on Delete asks first; the second one tells Python."""


def gallery(jobs: Sequence[Job], words: Words) -> str:
    """Newest first."""
    if not jobs:
        return f'<p class="sm-empty">{escape(words["no_jobs"])}</p>'
    cards = "".join(_card(job, words) for job in jobs)
    return f'<p class="sm-hint">{escape(words["compare_hint"])}</p>{_stage(words)}<ul class="sm-cards">{cards}</ul>'


def _card(job: Job, words: Words) -> str:
    own, prompt = escape(job.id), escape(job.actual_prompt or job.original_prompt or "")
    here = f"/{words.language}/?job={own}"
    actions = [f'<a class="sm-button" href="{here}">{escape(words["open"])}</a>']
    if job.state == "completed":
        actions.append(
            f'<button type="button" class="sm-button" data-compare="{own}" aria-pressed="false">'
            f'{escape(words["mark"])}</button>')
    if job.state in TERMINAL_JOB_STATES:
        actions.append(
            f'<button type="button" class="sm-button sm-delete" data-delete="{own}" '
            f'data-ask="{escape(words["sure"])}">{escape(words["delete"])}</button>')
    return (
        f'<li class="sm-card" data-card="{own}"><a class="sm-thumb" href="{here}" tabindex="-1" aria-hidden="true">'
        f'{_picture(job)}</a><p class="sm-words" title="{prompt}">{prompt or "…"}</p><p class="sm-when">'
        f'{escape(headline(job, words))} · <time datetime="{job.created_at.isoformat()}">'
        f'{job.created_at:%Y-%m-%d %H:%M}</time></p><div class="sm-take">{"".join(actions)}</div></li>'
    )


def _picture(job: Job) -> str:
    variant = "thumbnail" if job.state == "completed" else "input"
    return f'<img loading="lazy" alt="" src="/media/{escape(job.id)}/{variant}" onerror="this.remove()">'


def _stage(words: Words) -> str:
    videos = "".join(f'<video muted loop playsinline controls aria-label="{words["after"]} {side}"></video>'
                     for side in "AB")
    return (
        f'<section class="sm-stage" hidden aria-label="{escape(words["compare"])}"><div class="sm-pair">{videos}</div>'
        f'<button type="button" class="sm-button" data-play>{escape(words["play"])}</button></section>'
    )

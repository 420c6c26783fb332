"""What the policy says of a picture and the words with it, where GATEWAY_POLICY is on: asked in the same call."""

from collections.abc import Sequence

from contracts.describe import DescribeTask, TaskResult
from contracts.refusal import Refusal


class PolicyRefused(Refusal):
    """What was sent is against the policy; the message has the model's reason."""

    status, code, title = 422, "policy_refused", "Against this server's policy"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason.rstrip('.')}. Send another picture, or other words.")


def with_verdicts(tasks: Sequence[DescribeTask], wishes: Sequence[tuple[str | None, str | None]]) -> list[DescribeTask]:
    """The tasks, and one more for all that somebody wrote (words, manner), or, without words, for the picture alone."""
    written = [wish for wish in wishes if any(wish)] or [(None, None)]
    return [*tasks, *(DescribeTask(kind="verdict", user_prompt=words or manner, instruction=manner if words else None)
                      for words, manner in written)]


def wishes_of(tasks: Sequence[DescribeTask]) -> list[tuple[str | None, str | None]]:
    """What somebody wrote in them."""
    return [(task.question or task.user_prompt, task.instruction) for task in tasks]


def judged(results: Sequence[TaskResult], asked: int) -> tuple[list[TaskResult], list[str]]:
    """The answers to what was `asked` itself, and warnings of what a person should look at. Raises `PolicyRefused`."""
    verdicts = results[asked:]
    for verdict in verdicts:
        if verdict.verdict == "refuse":
            raise PolicyRefused(verdict.text)
    to_review = dict.fromkeys(one.text.rstrip(".") for one in verdicts if one.verdict != "ok")
    return list(results[:asked]), [f"To be reviewed by this server's policy: {reason}." for reason in to_review]

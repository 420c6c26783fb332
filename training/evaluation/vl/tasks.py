"""What an engine is asked about each picture of the evaluation, and what may be wrong with the form of a text."""

from contracts.describe import Language, TaskKind
from training.evaluation.vl import verdicts
from training.evaluation.vl.questions import WORDINGS, Question
from vl_service.backend import Task
from vl_service.prompts.profiles import profile_named, profiles

LANGUAGES: tuple[Language, ...] = ("en", "zh")
DEADLINE_S = 600.0


def tasks_about(questions: list[Question]) -> list[Task]:
    """Captions, prompts of every profile and suggestions in both languages, then the questions."""
    def task(kind: TaskKind, language: Language, profile: str = "embedded", question: str | None = None) -> Task:
        return Task(kind=kind, language=language, profile=profile_named(profile), seed=0, max_new_tokens=256,
                    question=question)

    return [
        *(task("caption", language) for language in LANGUAGES),
        *(task("prompt", language, name) for name, profile in profiles().items() for language in profile.languages),
        *(task("edit_suggestion", language) for language in LANGUAGES),
        *(task("question", question.language, question=question.text) for question in questions),
    ]


def usual_tasks(language: Language) -> list[Task]:
    """One text of each kind in one language."""
    question = WORDINGS["what"][language][0]
    return [Task(kind=kind, language=language, profile=profile_named("embedded"), seed=0, max_new_tokens=256,
                 question=question if kind == "question" else None)
            for kind in ("caption", "prompt", "edit_suggestion", "question")]


def title(task: Task) -> str:
    """What is told beside a verdict."""
    return f"{task.kind} {task.profile.name}" if task.kind == "prompt" else task.kind


def faults(task: Task, text: str) -> list[str]:
    """What is wrong with the form of a text: its language, its length, repetition."""
    language, found = task.language, []
    if not verdicts.right_language(text, language):
        found.append("language")
    if task.kind == "edit_suggestion":
        lines = text.splitlines()
        return [*found, *(["length"] if len(lines) != 3 else []), *(["repetition"] if len(set(lines)) < len(lines)
                or any(verdicts.repeats(line, language) for line in lines) else [])]
    bounds = (1, verdicts.CAPTION_LENGTH[language][1])
    if task.kind == "prompt":
        bounds = verdicts.prompt_bounds(task.profile, language)
    elif task.kind == "caption":
        bounds = verdicts.CAPTION_LENGTH[language]
    if not verdicts.right_length(text, bounds, language):
        found.append("length")
    return [*found, "repetition"] if verdicts.repeats(text, language) else found

"""What stands in quotation marks: text to be shown, which is neither read as a request nor ever changed."""

import re

QUOTED = re.compile(
    "\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|《[^》]*》|‘[^’]*’|(?<!\\w)'[^']*'(?!\\w)")


def quoted_parts(text: str) -> list[str]:
    """The parts in quotation marks, marks included."""
    return [match.group() for match in QUOTED.finditer(text)]

"""Check what a message must name: the field, the value, the file, the alternative. Its wording is free."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jaxplm.errors import UserError


def missing_parts(text: str, *parts: str) -> list[str]:
    """Return the parts that the text does not have as whole words: `data` is not found in `database`, nor `3` in `30`.

    A full stop between two of its characters belongs to the word: `data.train` is not found in `data.train.x`, nor `5` in `1.5`.
    """
    def found(part: str) -> bool:
        before = r"(?<!\w)(?<!\d\.)" if part[0].isalnum() else ""
        after = r"(?!\w|\.\w)" if part[-1].isalnum() else ""
        return re.search(before + re.escape(part) + after, text) is not None

    return [part for part in parts if not found(part)]


def assert_says(text: str, *parts: str) -> None:
    """Assert that the text has every part."""
    missing = missing_parts(text, *parts)
    assert not missing, f"{missing} missing in: {text}"


def assert_line(text: str, *parts: str) -> None:
    """Assert that one line of the text has every part."""
    assert any(not missing_parts(line, *parts) for line in text.splitlines()), f"no line with {parts} in: {text}"


def assert_refusal(text: str, *parts: str) -> None:
    """Assert that stderr is the one line of a refused command, and that it has every part."""
    assert re.fullmatch(r"jaxplm: [^\n]+\n", text), text
    assert_says(text, *parts)


@contextmanager
def refuses(*parts: str, error: type[BaseException] = UserError) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Expect an error whose message has every part, and is one line where it is for the user."""
    with pytest.raises(error) as caught:
        yield caught
    message = str(caught.value)
    if issubclass(error, UserError):
        assert "\n" not in message
    assert_says(message, *parts)

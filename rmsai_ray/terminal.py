"""Text that somebody else wrote, made safe for a terminal; changes with what terminals obey."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with whatever a terminal might obey instead of show as escapes: ``\x1b``, ``\u202e``, ``\n``.

    Args:
        text: of any origin.
        keep: characters that stay as they are, such as line ends in a message of several lines.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

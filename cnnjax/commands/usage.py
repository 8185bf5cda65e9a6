"""How a command line ends that is wrong, in one line where tyro draws a box, or whose reader has gone."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

# What tyro says of every type that an argument was tried as.
ATTEMPTS = " Got errors:"
HINTS = ("Perhaps you meant:", "Available subcommands:")


@contextlib.contextmanager
def one_line(program: str) -> Iterator[None]:
    """Prints what the block says of a wrong command line as one line of stderr.

    Raises:
      SystemExit: that of the block.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit:
        if box.getvalue():
            print(f"{program}: {flattened(box.getvalue())}", file=sys.stderr)
        raise


@contextlib.contextmanager
def until_closed() -> Iterator[None]:
    """Ends the process in silence once nobody reads its output any more, as in `cnnjax --help | head`.

    Raises:
      SystemExit: with the status of a process that SIGPIPE ended.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)


def flattened(box: str) -> str:
    """The text of a box: what is wrong, the nearest option or the commands, and where help is to be found.

    A text that is no box is only put on one line.
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│ ")
        if text and set(text) <= {"─", "-"}:
            sections.append([])
        elif text and not text.startswith(("╭", "╰")):
            sections[-1].append(text)
    # Where the border is of ASCII the title is a section of its own.
    titled = len(sections) > 1 and "╭" not in box
    wrong, *between = sections[1:] if titled else sections
    parts = [" ".join(wrong).partition(ATTEMPTS)[0]]
    parts += [" ".join(section[:2]) for section in between[:-1] if section and section[0].startswith(HINTS)]
    parts += [" ".join(section) for section in between[-1:]]
    return "; ".join(part.rstrip(". ") for part in parts)

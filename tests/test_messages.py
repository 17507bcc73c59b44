"""What pages of docs/ quote of the program is there: messages word for word, and keys of configurations."""

import re
from pathlib import Path

import pendel
import pytest
from pendel.app.schema import SCHEMA

DOCS = Path(__file__).parents[1] / "docs"
# literals of several lines are one
SOURCES = [re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in sorted(Path(pendel.__file__).parent.rglob("*.py"))]
SPAN = re.compile(r"`([^`]+)`")


def said():
    """Quoted messages of the first column, in parts: what lies between them is of the case."""
    rows = (DOCS / "troubleshooting.md").read_text().splitlines()
    columns = [row.split("|")[1] for row in rows if row.startswith("| ") and "what is said" not in row]
    spans = [span for column in columns for span in SPAN.findall(column) if span.split()[0] != "pendel"]
    return [part.strip() for span in spans for part in span.split("…") if part.strip(" :")]


@pytest.mark.parametrize("part", said())
def test_messages_are_those_of_the_program(part):
    words = part.rpartition(": ")[2].strip(" ;,.:")  # names, and what is told of a trust, are put before a colon
    assert not words or any(words in source for source in SOURCES), part


@pytest.mark.parametrize("page", ("scan", "troubleshooting", "recipe", "command-line", "planning", "campaign"))
def test_keys_are_those_of_the_program(page):
    for span in SPAN.findall((DOCS / f"{page}.md").read_text()):
        found = re.match(r"([a-z]+)\.([a-z_0-9]+)\b(?!\.)", span)
        if found and found[1] in SCHEMA:
            assert found[2] in SCHEMA[found[1]], span

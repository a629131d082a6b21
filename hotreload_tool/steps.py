"""Where the tool can be killed, or its disk be full: the steps from a linked image to what is live in a process.

docs/faults.md says what is left after each, and tests/live/test_faults.py shows it.
"""
from __future__ import annotations

import enum


class Step(enum.Enum):
    """In the order in which they come. The value says what the tool is about to do."""
    IMAGE = "copies a linked image into the store"
    FACTS = "writes down what it read from the image"
    FILED = "gives the baseline its name"
    PROGRAM = "notes which program the image is"
    READ = "reads a bundle"
    PLAN = "compares the objects with what is live"
    LINK = "links the payload"
    TRIAL = "notes that a bundle is about to be tried"
    BUNDLE = "writes the bundle"
    NAME = "gives a file that is written its name"
    APPENDED = "has the bundle in the chain"
    PAYLOAD = "writes the payload's file"
    REQUEST = "sends the request"
    ANSWER = "waits for the answer"
    ANSWERED = "has the answer"
    SETTLE = "decides whether the bundle stays"
    PRUNE = "removes what nobody needs any more"


def reached(step: Step) -> None:
    """Nothing: tests put something else in its place."""

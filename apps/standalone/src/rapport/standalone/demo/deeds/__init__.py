"""Deeds: what each kind of step does at the APIs, and how it is told.

`act` takes a step to its deed and returns the path of what it concerned, to be looked at after it.
A deed that an API refuses raises `Refused`, whatever the story expects of it.
"""

from rapport.standalone.demo.deeds import cases, crises, statements
from rapport.standalone.demo.deeds.stage import Stage, act

__all__ = ["Stage", "act", "cases", "crises", "statements"]

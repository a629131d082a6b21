"""The includes at the top of a unit, compiled once in a session: later compiles of the unit read what came of them
(docs/watch.md). An object made so is never the build's own: the plain compile runs behind it and is compared with it."""

"""What is measured: one file per subject, each with its rows and how they come about.

A part's `run` is a generator. It yields steps, functions that return figures by row; a step that fails is reported and
the next one runs.
"""

from rows import consume, generator, java, partitions, sink, start, store

PARTS = (
    *start.PARTS, *generator.PARTS, *java.PARTS, *consume.PARTS, *partitions.PARTS, *store.PARTS, *sink.PARTS,
)

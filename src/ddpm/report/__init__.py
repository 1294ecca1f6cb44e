"""One page about several runs: what they differ in, how well they did, how they learned, what they drew.

`report` and what it imports read and know no HTML; `page`, `panels`, `charts` and `templates` open no file of a run.
"""

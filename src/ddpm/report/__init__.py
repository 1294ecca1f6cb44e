"""An HTML page that compares runs: settings, results, curves and samples.

`report` and its imports read files and contain no HTML; `page`, `panels`, `charts` and `templates` read no file of a
run.
"""

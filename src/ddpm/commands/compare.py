"""Compare results of evaluate.py with the first one: python -m ddpm compare A.json B.json [MORE.json ...] [--json]"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ddpm.base.exit_codes import exit_code
from ddpm.base.system_errors import describe
from ddpm.evaluation.comparison import as_json, compare_results, format_comparison, read_results
from ddpm.runs.interruption import heed_signals


@heed_signals()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m ddpm compare", description="Compare results of evaluate.py.")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files; all are compared with the first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    try:
        results = read_results(given.results)
        differences = compare_results(results)
    except (ValueError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(exit_code(error))
    paths = dict(zip(results, given.results, strict=True))
    print((as_json if given.json else format_comparison)(results, paths, differences))


if __name__ == "__main__":
    main()

"""Write one HTML page that compares runs: python -m ddpm report RUN_OR_SWEEP ... [--out report.html]"""

import argparse
import sys
from pathlib import Path

from ddpm.base.atomic import write_atomically
from ddpm.base.exit_codes import exit_code
from ddpm.base.system_errors import describe
from ddpm.report.page import page
from ddpm.report.report import read_report
from ddpm.runs.interruption import heed_signals


@heed_signals()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m ddpm report", description="Write an HTML page that compares runs.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run, a sweep, or a folder of runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="file to write (default: report.html)")
    given = parser.parse_args(arguments)
    try:
        if given.out.is_dir():
            raise ValueError(f"--out must be a file, got the folder {given.out}; add a name: {given.out}/report.html")
        report = read_report(given.folders)
        write_atomically(given.out, content := page(report).encode())
    except (ValueError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(exit_code(error))
    runs = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    print(f"{runs} in {given.out}, {len(content) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    main()

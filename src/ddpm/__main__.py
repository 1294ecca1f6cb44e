"""The program `ddpm COMMAND`, also as `python -m ddpm COMMAND`."""

import runpy
import sys

from ddpm.base.check import suggestion
from ddpm.base.exit_codes import COMMAND
from ddpm.base.program import CONF, PROGRAM, SCRIPTS

COMMANDS = {
    **{name: f"ddpm.commands.{name}" for name in ("compare", "export", "report", "replay")},
    "verify-resume": "ddpm.commands.verify_resume",
    "check-schedule": "ddpm.commands.check_schedule",
    "check-data": "ddpm.commands.check_data",
}


def main() -> None:
    name, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name in SCRIPTS:  # the processes that Lightning starts for other ranks run this script again
        script = str(PROGRAM / f"{name}.py")
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")
    elif name in COMMANDS:
        sys.argv = [f"ddpm {name}", *words]
        if (CONF / f"{name.replace('-', '_')}.yaml").exists():  # a command with Hydra
            if {"--help", "-h"} & set(words):
                from ddpm.commands.options import help_text

                print(help_text(CONF, name.replace("-", "_")))
                return
            print(f"{name}: importing torch and Lightning", flush=True)
        runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
    else:
        hint = suggestion(name, (*SCRIPTS, *COMMANDS))
        wrong = f"there is no command {name!r}{hint}\n" if name not in ("", "--help", "-h") else ""
        print(
            f"{wrong}usage: ddpm {'|'.join((*SCRIPTS, *COMMANDS))} [ARGUMENTS]; ddpm COMMAND --help describes one",
            file=sys.stderr if wrong else sys.stdout,
        )
        sys.exit(COMMAND if wrong else 0)


if __name__ == "__main__":
    main()

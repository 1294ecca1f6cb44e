"""The program `ddpm COMMAND`, also as `python -m ddpm COMMAND`."""

import runpy
import sys

from ddpm.base.check import suggestion
from ddpm.base.exit_codes import COMMAND
from ddpm.base.program import CONF, PROGRAM, SCRIPTS

COMMANDS = {
    "train": "train a model",
    "sample": "generate images, or use a model for another task: inpaint, interpolate, ...",
    "evaluate": "measure FID, likelihood and others, of a model or of images",
    "compare": "compare results of evaluate",
    "report": "write an HTML page that compares runs",
    "export": "write a model as a folder for ddpm or diffusers",
    "check-data": "look at a data set before training",
    "check-schedule": "analyze a noise schedule",
    "verify-resume": "test that a killed and resumed run is bitwise equal",
    "replay": "find the first non-finite value of a training step",
}


def main() -> None:
    name, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name in SCRIPTS:  # the processes that Lightning starts for other ranks run this script again
        script = str(PROGRAM / f"{name}.py")
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")
    elif name in COMMANDS:
        module = name.replace("-", "_")
        sys.argv = [f"ddpm {name}", *words]
        if (CONF / f"{module}.yaml").exists():  # a command with Hydra
            if {"--help", "-h"} & set(words):
                from ddpm.commands.options import help_text

                print(help_text(CONF, module))
                return
            print(f"{name}: importing torch and Lightning", flush=True)
        runpy.run_module(f"ddpm.commands.{module}", run_name="__main__", alter_sys=True)
    elif name in ("", "--help", "-h"):
        about = "".join(f"\n  {each:15} {does}" for each, does in COMMANDS.items())
        print(f"usage: ddpm COMMAND [ARGUMENTS]; ddpm COMMAND --help describes one{about}")
    else:
        hint = suggestion(name, COMMANDS) or "; ddpm --help lists them"
        print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
        sys.exit(COMMAND)


if __name__ == "__main__":
    main()

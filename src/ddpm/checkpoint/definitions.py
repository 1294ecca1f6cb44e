"""Names defined in a module of this package, found by parsing its source without importing it."""

import ast
import functools

from ddpm.base.program import PACKAGE


@functools.cache
def definitions(module: str) -> frozenset[str]:
    """Top-level functions and classes of the module `ddpm.PACKAGE.MODULE`, and assignments of `partial(...)`.

    Imported names are not included. Empty if there is no such module.
    """
    below = PACKAGE.joinpath(*module.split(".")[1:])
    path = next((path for path in (below.with_suffix(".py"), below / "__init__.py") if path.is_file()), None)
    if path is None:
        return frozenset()
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("partial("):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return frozenset(names)

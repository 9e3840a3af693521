"""Docstrings of public names: ``python -m tests.docs.docstrings [--public] [PATH …]``.

``--public`` limits the check to the names that applications import: those that an ``__init__.py`` exports, and the
modules of ``eventbus.integrations``.

A name in ``__all__`` of a module has a docstring, and so has each public method of a class there. A docstring has the
section ``Args:`` with every argument where it takes some, ``Raises:`` where its body raises, and ``Returns:`` (or
``Yields:``) where it returns a value. Properties need none of the sections. A class documents the arguments of
``__init__``, or the fields of a dataclass, in its own docstring (``Args:`` or ``Attributes:``) or in that of
``__init__``; settings do it in the description of each field. A docstring that
begins with "Return" or "Yield" needs no such section. One that begins with "See ``Port``" needs none
at all: the port documents the method.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.sources import PACKAGES, ROOT, exported, files

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef

_NOTHING = frozenset({"None", "NoReturn", "Never", ""})
_DESCRIBED = frozenset({"BaseSettings", "Protocol", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "TypedDict"})


def names(node: ast.ClassDef | Function) -> set[str]:
    """Names of decorators, without their modules and arguments."""
    return {
        ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).rpartition(".")[2]
        for decorator in node.decorator_list
    }


def section(docstring: str, *titles: str) -> str:
    """The text of the sections of a docstring with one of the titles, or nothing."""
    return "".join(re.findall(rf"^ *(?:{'|'.join(titles)}):\n((?: *\n| {{4,}}.*\n?)+)", docstring, re.MULTILINE))


def arguments(function: Function) -> list[str]:
    taken = function.args
    listed = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, *filter(None, (taken.vararg, taken.kwarg))]
    return [argument.arg for argument in listed if argument.arg not in ("self", "cls") and argument.arg[0] != "_"]


def own(function: Function) -> Iterator[ast.AST]:
    """Nodes of the body without those of nested functions."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def sections_of_function(function: Function, docstring: str) -> Iterator[str]:
    if docstring.startswith("See ``"):
        return  # the port that it implements has the sections
    yield from missing_arguments(arguments(function), docstring, "Args")
    if "property" in names(function) or "cached_property" in names(function):
        return
    body = list(own(function))
    raises = [node for node in body if isinstance(node, ast.Raise) and node.exc is not None]
    if raises and not section(docstring, "Raises"):
        yield "no Raises:"
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in body)
    returns = "" if function.returns is None else ast.unparse(function.returns).rpartition(".")[2]
    described = section(docstring, "Returns", "Yields") or docstring.startswith(("Return", "Yield"))
    if returns not in _NOTHING and not described:
        yield "no Yields:" if yields else "no Returns:"


def missing_arguments(taken: list[str], docstring: str, *titles: str) -> Iterator[str]:
    text = section(docstring, *titles)
    if taken and not text:
        yield f"no {titles[0]}:"
    elif lacking := [name for name in taken if not re.search(rf"^ *\*{{0,2}}{name}(?: \(.*\))?:", text, re.MULTILINE)]:
        yield f"{titles[0]}: lacks {', '.join(lacking)}"


def fields(class_: ast.ClassDef) -> list[str]:
    """Public fields of a dataclass that its constructor takes."""
    if not names(class_) & {"dataclass", "dataclass_transform"}:
        return []
    annotated = [node for node in class_.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    taken = [node for node in annotated if "ClassVar" not in ast.unparse(node.annotation)]
    taken = [node for node in taken if "init=False" not in ast.unparse(node)]
    return [node.target.id for node in taken if isinstance(node.target, ast.Name) and node.target.id[0] != "_"]


def of_class(class_: ast.ClassDef) -> Iterator[tuple[ast.AST, str, str]]:
    docstring = ast.get_docstring(class_) or ""
    if not docstring:
        yield class_, class_.name, "no docstring"
    described = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in class_.bases} & _DESCRIBED
    methods = [node for node in class_.body if isinstance(node, Function)]
    for method in methods:
        if method.name == "__init__":
            both = f"{docstring}\n{ast.get_docstring(method) or ''}"
            for missing in missing_arguments(arguments(method), both, "Args", "Attributes"):
                yield method, class_.name, missing
        elif not method.name.startswith("_") and not names(method) & {"setter", "overload", "override"}:
            for node, name, missing in of_function(method):
                yield node, f"{class_.name}.{name}", missing
    if not described and not any(method.name == "__init__" for method in methods):
        for missing in missing_arguments(fields(class_), docstring, "Args", "Attributes"):
            yield class_, class_.name, missing


def of_function(function: Function) -> Iterator[tuple[ast.AST, str, str]]:
    docstring = ast.get_docstring(function) or ""
    if not docstring:
        yield function, function.name, "no docstring"
        return
    for missing in sections_of_function(function, docstring):
        yield function, function.name, missing


def in_file(path: Path, public: set[str] | None = None) -> Iterator[str]:
    """Findings about the names in ``__all__``, or about ``public`` alone."""
    tree = ast.parse((ROOT / path).read_text())
    public = set(exported(tree)) if public is None else public
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name not in public or "overload" in names(node):
            continue
        found = of_class(node) if isinstance(node, ast.ClassDef) else of_function(node)
        for at, name, missing in found:
            yield f"{path}:{getattr(at, 'lineno', 0)}: {name}: {missing}"


def for_applications(paths: list[Path]) -> dict[Path, set[str]]:
    """Names that applications import, by the file that defines them."""
    public: dict[Path, set[str]] = {}
    for path in paths:
        tree = ast.parse((ROOT / path).read_text())
        if path.parts[:2] == ("eventbus", "integrations"):
            public.setdefault(path, set()).update(exported(tree))
        if path.name != "__init__.py":
            continue
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                module = Path(*node.module.split("."))
                file = module / "__init__.py" if (ROOT / module).is_dir() else module.with_suffix(".py")
                public.setdefault(file, set()).update({alias.name for alias in node.names} & set(exported(tree)))
    return public


def main(arguments: list[str]) -> int:
    paths = [path for path in files([name for name in arguments if name != "--public"]) if path.suffix == ".py"]
    paths = [path for path in paths if path.parts[0] in PACKAGES]
    found = [line for path in paths for line in in_file(path)]
    if "--public" in arguments:
        every = [path for path in files([]) if path.suffix == ".py" and path.parts[0] in PACKAGES]
        public = for_applications(every)
        found = [line for path in paths if path in public for line in in_file(path, public[path])]
    for line in found:
        print(line)
    print(f"{len(found)} findings in {len(paths)} files", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The changes of a Python source: one node of its syntax tree at a time."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tests.mutants.mutant import Change

__all__ = ["python_changes"]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = {"min": "max", "max": "min", "any": "all", "all": "any", "popleft": "pop", "appendleft": "append"}
_LOGS = frozenset({"log", "_log", "logger", "_logger", "_LOG", "LOG"})
_TYPING = frozenset({"cast", "TypeVar", "ParamSpec", "NewType", "isinstance", "getLogger"})


def python_changes(source: bytes) -> list[Change]:
    """Return all changes of a source. Types, messages of errors and arguments of log lines stay."""
    visitor = _Visitor(source)
    visitor.visit(ast.parse(source))
    return visitor.changes


class _Visitor(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.changes: list[Change] = []
        self._source = source
        self._functions: list[str] = []
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def put(self, node: ast.expr | ast.stmt, text: str, operator: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[node.end_lineno - 1] + node.end_col_offset
        self.changes.append(Change(start, end, text.encode(), operator))

    def put_expression(self, node: ast.expr, new: ast.expr, operator: str) -> None:
        text = ast.unparse(new)
        self.put(
            node, f"({text})" if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.IfExp) else text, operator
        )

    def each(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    # Left out

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Its parts have no positions in Python 3.11."""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.each(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.each([node.value])

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if names & {"__all__", "__slots__", "model_config"}:
            return
        if any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._remove(node)
        self.visit(node.value)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions.append(node.name)
        self.each([*node.args.defaults, *node.args.kw_defaults, *node.body])
        self._functions.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    # Statements

    def _remove(self, node: ast.stmt) -> None:
        if self._functions and self._functions[-1] not in {"__init__", "__post_init__"}:
            self.put(node, "pass", "statement")

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if not isinstance(call, ast.Call):
            return
        self.put(node, "pass", "statement")
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if name not in _LOGS:
            self.visit(call)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.put(node, "pass", "statement")

    def visit_Delete(self, node: ast.Delete) -> None:
        self._remove(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._remove(node)
        other = _ARITHMETIC.get(type(node.op))
        if other is not None:
            self.put(node, ast.unparse(ast.AugAssign(node.target, other(), node.value)), "arithmetic")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        if not isinstance(node.value, ast.Constant):
            self.put(node, "return None", "return")
        self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self.put(node, "continue", "jump")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.put(node, "break", "jump")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.each([*node.body, *node.orelse])

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self.put(node.test, "False", "condition")
            self.visit(node.test)
        self.each([*node.body, *node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.each([node.body, node.orelse])

    def _condition(self, test: ast.expr) -> None:
        self.put(test, "True", "condition")
        self.put(test, "False", "condition")
        self.visit(test)

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            ops = [*node.ops]
            ops[index] = _COMPARISONS[type(operator)]()
            self.put_expression(node, ast.Compare(node.left, ops, node.comparators), "comparison")
        self.each([node.left, *node.comparators])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for index in range(len(node.values)):
            left = [value for at, value in enumerate(node.values) if at != index]
            self.put_expression(node, ast.BoolOp(node.op, left) if len(left) > 1 else left[0], "boolean")
        self.each(node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.put(node, f"bool({ast.unparse(node.operand)})", "not")
        self.visit(node.operand)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = _ARITHMETIC.get(type(node.op))
        text = any(
            isinstance(side, ast.Constant) and isinstance(side.value, str | bytes) for side in (node.left, node.right)
        )
        text = text or isinstance(node.left, ast.JoinedStr) or isinstance(node.right, ast.JoinedStr)
        if other is not None and not text and not _is_type(node):
            self.put_expression(node, ast.BinOp(node.left, other(), node.right), "arithmetic")
        self.each([node.left, node.right])

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.put(node, str(not value), "constant")
        elif isinstance(value, int | float):
            self.put(node, repr(value + 1), "constant")
            self.put(node, f"({value - 1!r})" if value < 1 else repr(value - 1), "constant")

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _TYPING:
            return
        if name in _PAIRS:
            new = ast.parse(ast.unparse(node.func).removesuffix(name) + _PAIRS[name], mode="eval").body
            self.put_expression(node.func, new, "call")
        self.each([node.func, *node.args, *(keyword.value for keyword in node.keywords)])


def _is_type(node: ast.BinOp) -> bool:
    """Whether ``A | B`` looks like a union of types."""
    sides = (node.left, node.right)
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(side, ast.Constant) and side.value is None)
        or (
            isinstance(side, ast.Name)
            and (side.id[:1].isupper() or side.id in {"str", "bytes", "int", "float", "bool"})
        )
        or isinstance(side, ast.Subscript)
        for side in sides
    )

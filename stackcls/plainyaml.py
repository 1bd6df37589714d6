"""YAML that is what it looks like: no key twice, nothing that grows when it is read, nothing executed."""

from collections.abc import Hashable
from typing import Any

import yaml

MOST_VALUES = 20_000
DEEPEST = 50


def parse(text: str | bytes) -> Any:
    """Read one YAML document.

    Raises
    ------
    yaml.YAMLError
        Whatever is wrong with it, with the line in `problem_mark`.
    UnicodeDecodeError
        If bytes are no UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a subclass of SafeLoader)
    except RecursionError:
        raise yaml.YAMLError(f"nested more than {DEEPEST} levels deep") from None
    except ValueError as error:  # a date that does not exist, a number of ten thousand digits
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    """Safe YAML with limits; what plain YAML would resolve silently is an error."""

    def get_single_node(self) -> yaml.Node | None:
        """Take the document, unless its aliases make it grow without bound, or it contains itself."""
        node = super().get_single_node()
        if node is not None:
            _measure(node, {}, [])
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping after looking for keys that stand there twice."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice, first on line {lines[key.value]}", key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _measure(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """Number of values in a node with all aliases written out."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above or len(above) > DEEPEST:
        problem = "an alias stands inside of what it names" if id(node) in above else f"over {DEEPEST} levels deep"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    count = 1
    if not isinstance(node, yaml.ScalarNode):
        above.append(id(node))
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                count += _measure(part, known, above)
        above.pop()
    if count > MOST_VALUES:
        problem = f"more than {MOST_VALUES} values, aliases written out"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    known[id(node)] = count
    return count

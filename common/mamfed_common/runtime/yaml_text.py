"""Parse YAML that another party wrote, within bounds of time and memory.

PyYAML's safe loader builds plain values only, but raises nine classes of exceptions, converts
numbers of any length, and lets a few lines of aliases stand for a thousand million values.
"""

from __future__ import annotations

from typing import Any

import yaml

from mamfed_common.runtime.text import typed_blanks

MAX_VALUES = 10_000
"""Maximum number of keys and values of a document, each counted wherever an alias repeats it."""
MAX_DIGITS = 64
"""Maximum length of a whole number."""


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a duplicate key is an error, and that sizes are bounded."""

    def __init__(self, text: str) -> None:
        """Load from a text."""
        super().__init__(text)
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value, counting it."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _too_many()
        return super().compose_node(parent, index)

    def compose_document(self) -> yaml.Node | None:
        """Compose the document; refuse aliases that repeat too many values, or themselves."""
        root = super().compose_document()
        waiting, done = [root], 0
        while waiting:
            node = waiting.pop()
            done += 1
            if isinstance(node, yaml.MappingNode):
                waiting.extend(part for pair in node.value for part in pair)
            elif isinstance(node, yaml.SequenceNode):
                waiting.extend(node.value)
            if done + len(waiting) > MAX_VALUES:
                raise _too_many()
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing duplicate keys."""
        seen = set()
        for part, _ in node.value:
            key = self.construct_object(part, deep=True)
            try:
                is_new = key not in seen
            except TypeError:
                break  # the safe loader refuses keys that are lists or mappings
            if not is_new:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {str(key)[:80]!r} is given twice", node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Build a whole number of a reasonable length."""
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters", node.start_mark
            )
        return int(super().construct_yaml_int(node))


UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", UniqueKeyLoader.construct_yaml_int)


def parse(text: str) -> Any:
    """Parse one YAML document; an empty one is None.

    Raises:
        ValueError: It is not YAML, has a duplicate key, or exceeds a bound; the message is one line
            of printable characters.
    """
    try:
        return yaml.load(typed_blanks(text), Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(_one_line(str(error))) from None
    except ValueError as error:  # such as a date in month 13
        raise ValueError(f"a value is not what its form says ({_one_line(str(error))})") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # such as !!bool maybe
        raise ValueError("a value is not what its tag says") from None


def _too_many() -> yaml.YAMLError:
    return yaml.YAMLError(f"more than {MAX_VALUES:,} keys and values")


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    shown = words if len(words) <= 300 else f"{words[:300]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)

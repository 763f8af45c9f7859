"""The daemon's settings as flags of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunstack.daemon import sysctls
from tunstack.daemon.kinds import Several, Switch
from tunstack.daemon.settings import Key, Setting


def add_settings(group: argparse._ArgumentGroup, settings: Iterable[Setting[Any]]) -> None:
    """Add a flag for each setting; one that is not given leaves no trace in the namespace."""
    for setting in settings:
        text = (setting.help + _default(setting)).replace("%", "%%")  # argparse would format it
        common: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS}
        if isinstance(setting.kind, Switch):
            negative = "--no-" + setting.flag.removeprefix("--")
            first, other = (negative, setting.flag) if setting.default else (setting.flag, negative)
            group.add_argument(first, action="store_const", const=not setting.default, help=_negated(setting) + text, **common)
            group.add_argument(other, action="store_const", const=setting.default, help=argparse.SUPPRESS, **common)
        elif isinstance(setting.kind, Several):
            kind = setting.kind.kind
            group.add_argument(
                setting.flag, action="append", type=_checked(kind.from_text), metavar=setting.kind.metavar, help=text, **common
            )
        else:
            group.add_argument(setting.flag, type=_checked(setting.kind.from_text), metavar=setting.kind.metavar, help=text, **common)


def add_sysctl(group: argparse._ArgumentGroup) -> None:
    """Add `--sysctl NAME=VALUE`."""
    group.add_argument(
        "--sysctl",
        action="append",
        type=_checked(_knob),
        default=[],
        metavar="NAME=VALUE",
        help="set a knob, such as net.ipv4.tcp_sack=0; may be repeated",
    )


def overrides(namespace: argparse.Namespace, settings: Iterable[Setting[Any]]) -> Mapping[Key, object]:
    """Return the settings that were given, by their keys."""
    given = vars(namespace)
    values = {setting.key: given[setting.name] for setting in settings if setting.name in given}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _default(setting: Setting[Any]) -> str:
    if setting.default is None or isinstance(setting.kind, Switch):
        return ""
    if isinstance(setting.default, tuple):
        return f" (default {' '.join(map(str, setting.default))})"
    text = f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)
    return f" (default {text})"


def _negated(setting: Setting[Any]) -> str:
    return "do not " if setting.default else ""


def _knob(text: str) -> tuple[str, sysctls.Value]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, sysctls.check(name, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make argparse say what a conversion says."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted

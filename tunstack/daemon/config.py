"""The daemon's configuration: defaults, then the file, then the command line; checked, each complaint with its place.

In the file a setting has the name that its flag has, with hyphens; those of a service are in its table, `[services.http]`;
knobs are in `[sysctl]` under their full names. A path in the file is relative to the directory that the file is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunstack.daemon import keys, settings, sysctls, tomlfile
from tunstack.daemon.algorithm import Choice
from tunstack.daemon.errors import UserError
from tunstack.daemon.kinds import ItemError, check_host, describe, suggest
from tunstack.daemon.settings import Key, Setting

if TYPE_CHECKING:
    from tunstack.device.linkspec import LinkSpec

T = TypeVar("T")


class ConfigError(UserError):
    """The configuration cannot be used."""


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """The TUN interface: the kernel's end (`host_address`) and ours (`addresses`). MTU in octets."""

    tun: str
    host_address: IPv4Interface
    addresses: tuple[IPv4Address, ...]
    mtu: int
    offload: bool


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `tunstack serve` runs with."""

    interface: InterfaceConfig
    user: str
    loop: str
    log_level: str
    drain_timeout: float  # s
    ports: Mapping[str, int]  # of the services that are on
    http_root: Path | None
    http_upload: bool
    sysctl: Mapping[str, sysctls.Value] = field(default_factory=dict)  # by full name, only those that were set
    keys: tuple[keys.KeyConfig, ...] = ()  # of TCP-AO and TCP MD5
    link: LinkSpec | None = None  # between us and the interface
    congestion: Choice | None = None  # goes before the knob
    control: Path | str | None = None  # the control socket; NO_SOCKET: none, None: where they usually are
    metrics: tuple[str, int] | None = None  # where Prometheus finds them
    workers: int = 1  # processes


class Values:
    """Settings from all sources, with where each came from, and what was found wrong with them."""

    def __init__(self, overrides: Mapping[Key, object] | None = None) -> None:
        self._flags = dict(overrides or {})  # from the command line, checked
        self._file: dict[Key, object] = {}  # from the file, checked
        self._path: Path | None = None
        self._document: tomlfile.Document | None = None
        self._complaints: list[tuple[int, str]] = []  # line (0: command line), message
        self.sysctl: dict[str, sysctls.Value] = {}
        self.keys: list[keys.KeyConfig] = []

    def get(self, setting: Setting[T]) -> T:
        """Return a setting's value; one without a default must have been set."""
        value = self.find(setting)
        assert value is not None
        return value

    def find(self, setting: Setting[T]) -> T | None:
        """Return a setting's value, or None if it has none."""
        for source in (self._flags, self._file):
            if setting.key in source:
                return source[setting.key]  # type: ignore[return-value]  # it was made by the setting's own kind
        return setting.default

    def is_set(self, setting: Setting[Any]) -> bool:
        """Tell whether the user said it."""
        return setting.key in self._flags or setting.key in self._file

    def complain(self, setting: Setting[T], message: str, item: int | None = None) -> None:
        """Note that a setting's value (or an item of it) does not go with the rest."""
        if setting.key in self._flags or setting.key not in self._file:
            self._complaints.append((0, f"{setting.flag}: {message}"))
        else:
            position: tomlfile.Position = setting.key if item is None else (*setting.key, item)
            self._complain_at(position, message)

    def raise_complaints(self) -> None:
        """Raise ConfigError if anything was found wrong."""
        if self._complaints:
            raise ConfigError(*(message for _line, message in sorted(self._complaints, key=lambda complaint: complaint[0])))

    def read_file(self, path: Path, known: Sequence[Setting[Any]]) -> None:
        """Take the settings of a file; what is wrong in it is noted, line by line."""
        self._path = path
        try:
            self._document = tomlfile.read(path)
        except tomlfile.TomlError as error:
            raise ConfigError(f"{path}:{error.line}: {error}") from error
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        self._take_table((), self._document.values, {setting.key: setting for setting in known})

    def _complain_at(self, position: tomlfile.Position, message: str) -> None:
        assert self._document is not None
        line = self._document.line(position)
        name = ".".join(str(part) for part in position if isinstance(part, str))
        self._complaints.append((line, f"{self._path}:{line}: {name}: {message}"))

    def _take_table(self, prefix: Key, table: Mapping[str, object], known: Mapping[Key, Setting[Any]]) -> None:
        """Take one table; a key of it is a setting, a table with settings in it, or unknown."""
        for name, value in table.items():
            key = (*prefix, name)
            if key in known:
                self._take(known[key], value)
            elif key == ("sysctl",):
                self._take_sysctl(key, value)
            elif key == ("keys",):
                self._take_keys(value)
            elif any(other[: len(key)] == key for other in known):
                if isinstance(value, dict):
                    self._take_table(key, value, known)
                else:
                    self._complain_at(key, f"must be a table, not {describe(value)}")
            else:
                siblings = {other[len(prefix)] for other in (*known, ("sysctl",), ("keys",)) if other[: len(prefix)] == prefix}
                self._complain_at(key, f"unknown key{suggest(name, sorted(siblings))}")

    def _take(self, setting: Setting[Any], value: object) -> None:
        try:
            taken = setting.kind.from_toml(value)
        except ItemError as error:
            self._complain_at((*setting.key, error.index) if isinstance(value, list) else setting.key, str(error))
            return
        except ValueError as error:
            self._complain_at(setting.key, str(error))
            return
        if isinstance(taken, Path) and self._path is not None:
            taken = self._path.parent / taken
        elif isinstance(taken, Choice) and self._path is not None:
            taken = taken.below(self._path.parent)
        self._file[setting.key] = taken

    def _take_keys(self, value: object) -> None:
        """Take `[[keys]]`."""
        assert self._path is not None
        if not isinstance(value, list):
            self._complain_at(("keys",), f"must be tables, [[keys]], not {describe(value)}")
            return
        for index, table in enumerate(value):
            try:
                self.keys.append(keys.take(table, self._path.parent))
                keys.check(self.keys)
            except keys.KeyMistake as mistake:
                self._complain_at(("keys", index, mistake.name) if mistake.name else ("keys", index), str(mistake))
            except ValueError as error:
                self._complain_at(("keys", index), str(error))

    def _take_sysctl(self, key: Key, value: object) -> None:
        """Take `[sysctl]`; a knob may be quoted whole, or its dots may be tables."""
        if isinstance(value, dict):
            for name, inner in value.items():
                self._take_sysctl((*key, name), inner)
        elif len(key) == 1:
            self._complain_at(key, f"must be a table, not {describe(value)}")
        else:
            try:
                self.sysctl[".".join(key[1:])] = sysctls.check(".".join(key[1:]), value)
            except ValueError as error:
                self._complain_at(key, str(error))


def load(
    path: Path | None = None,
    overrides: Mapping[Key, object] | None = None,
    sysctl: Mapping[str, sysctls.Value] | None = None,
) -> ServeConfig:
    """Return the checked configuration of `tunstack serve`; ConfigError if it is wrong.

    `overrides` and `sysctl` are what the command line says, each value checked by its kind already.
    """
    values = Values(overrides)
    if path is not None:
        values.read_file(path, settings.SERVE_SETTINGS)
    interface = interface_config(values, settings.SERVE_TUN, settings.SERVE_HOST_ADDRESS, settings.SERVE_ADDRESS)
    config = ServeConfig(
        interface=interface,
        user=values.get(settings.USER),
        loop=values.get(settings.LOOP),
        log_level=values.get(settings.LOG_LEVEL),
        drain_timeout=values.get(settings.DRAIN_TIMEOUT),
        ports=_ports(values),
        http_root=values.find(settings.HTTP_ROOT),
        http_upload=values.get(settings.HTTP_UPLOAD),
        sysctl={**values.sysctl, **(sysctl or {})},
        keys=tuple(values.keys),
        link=values.find(settings.LINK),
        congestion=values.find(settings.CONGESTION),
        control=values.find(settings.CONTROL),
        metrics=values.find(settings.METRICS),
        workers=values.get(settings.WORKERS),
    )
    if config.workers > 1 and config.link is not None:
        values.complain(settings.WORKERS, f"the link of {settings.LINK.flag} is one, and has room for one worker")
    if config.http_upload and config.http_root is None and "http" in config.ports:
        values.complain(settings.HTTP_UPLOAD, f"there is no directory to write to; give one with {settings.HTTP_ROOT.flag}")
    values.raise_complaints()
    return config


def interface_config(
    values: Values,
    tun: Setting[str],
    host_address: Setting[IPv4Interface],
    address: Setting[tuple[IPv4Address, ...]],
) -> InterfaceConfig:
    """Return the interface's part of the configuration; what does not go together is noted in `values`.

    An interface that exists already has a network of its own, so where the user names none it is left to the device to check.
    """
    host = values.get(host_address)
    addresses = values.get(address)
    for index, ours in enumerate(addresses):
        if ours in addresses[:index]:
            values.complain(address, f"{ours} is there twice", index)
        elif ours == host.ip:
            values.complain(address, f"{ours} is the kernel's own end ({host_address.flag} {host})", index)
        elif not values.is_set(host_address):
            continue
        elif ours not in host.network:
            values.complain(address, f"{ours} is not in the interface's network {host.network} ({host_address.flag} {host})", index)
        else:
            try:
                check_host(ours, host)
            except ValueError as error:
                values.complain(address, str(error), index)
    return InterfaceConfig(
        tun=values.get(tun), host_address=host, addresses=addresses, mtu=values.get(settings.MTU), offload=values.get(settings.OFFLOAD)
    )


def _ports(values: Values) -> dict[str, int]:
    """Return the ports of the services that are on; no two may share one."""
    ports: dict[str, int] = {}
    for name in settings.SERVICE_PORTS:
        if not values.get(settings.SERVICE_ENABLED[name]):
            continue
        port = values.get(settings.SERVICE_PORT[name])
        for other, taken in ports.items():
            if taken == port:
                # The one that was moved is the one to complain of.
                culprit = other if port == settings.SERVICE_PORTS[name] else name
                values.complain(settings.SERVICE_PORT[culprit], f"{port} is the port of {other if culprit == name else name} already")
        ports[name] = port
    return ports


def to_toml(config: ServeConfig) -> str:
    """Write a configuration as a file that would give it: every setting, its meaning beside it."""
    interface = config.interface
    given: dict[Key, object] = {
        settings.SERVE_TUN.key: interface.tun,
        settings.SERVE_HOST_ADDRESS.key: interface.host_address,
        settings.SERVE_ADDRESS.key: interface.addresses,
        settings.MTU.key: interface.mtu,
        settings.OFFLOAD.key: interface.offload,
        settings.LINK.key: config.link,
        settings.USER.key: config.user,
        settings.LOOP.key: config.loop,
        settings.LOG_LEVEL.key: config.log_level,
        settings.DRAIN_TIMEOUT.key: config.drain_timeout,
        settings.CONTROL.key: config.control.absolute() if isinstance(config.control, Path) else config.control,
        settings.METRICS.key: config.metrics,
        settings.WORKERS.key: config.workers,
        settings.CONGESTION.key: None if config.congestion is None else config.congestion.below(Path.cwd()),
        settings.HTTP_ROOT.key: None if config.http_root is None else config.http_root.absolute(),
        settings.HTTP_UPLOAD.key: config.http_upload,
    }
    for name, port in settings.SERVICE_PORTS.items():
        given[settings.SERVICE_ENABLED[name].key] = name in config.ports
        given[settings.SERVICE_PORT[name].key] = config.ports.get(name, port)
    lines: list[str] = []
    table: Key = ()
    for setting in sorted(settings.SERVE_SETTINGS, key=lambda setting: setting.key[:-1]):
        if setting.key[:-1] != table:
            table = setting.key[:-1]
            lines += ["", f"[{'.'.join(table)}]"]
        value = given[setting.key]
        if value is None:
            lines.append(f"# {setting.key[-1]} =  # {setting.help}")
        else:
            lines.append(f"{setting.key[-1]} = {setting.kind.to_toml(value)}  # {setting.help}")
    lines += ["", "[sysctl]", *(f"{name} = {sysctls.to_toml(value)}" for name, value in config.sysctl.items()), *keys.to_toml(config.keys)]
    return "\n".join(lines) + "\n"

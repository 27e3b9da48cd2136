"""The host's apt sources, reduced to the distribution's own archive.

Formats: sources.list(5), one-line (``deb [options] uri suite component…``) and deb822 stanzas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)")


@dataclass(frozen=True)
class Distribution:
    """A supported distribution.

    Attributes:
        components: The components of its archive; other repositories have other names.
        keyring: The prefix of the archive's keyring files.
        needed: The components that have runit and python3-venv.
    """

    components: frozenset[str]
    keyring: str
    needed: tuple[str, ...]


DISTRIBUTIONS = {
    "debian": Distribution(
        frozenset({"main", "contrib", "non-free", "non-free-firmware"}), "debian-archive-", ("main",)
    ),
    "ubuntu": Distribution(
        frozenset({"main", "restricted", "universe", "multiverse"}), "ubuntu-archive-", ("main", "universe")
    ),
}


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """The host's os-release(5), empty where there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text("utf-8", "replace")
        except OSError:
            continue
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line and line[0] != "#")
        return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    return {}


def archive_sources(distribution: str, codename: str, root: Path = Path("/")) -> list[str]:
    """The host's entries for the distribution's archive, as deb822 stanzas.

    Args:
        distribution: A key of :data:`DISTRIBUTIONS`.
        codename: Such as ``bookworm``.
        root: The folder that has ``etc/apt``.

    Returns:
        One stanza for each entry; none where the host has no entry for the release itself.
    """
    known = DISTRIBUTIONS[distribution]
    suites = {codename, *(f"{codename}-{part}" for part in ("updates", "security"))}
    found, has_release = list[str](), False
    for fields in _entries(root / "etc/apt"):
        wanted = [item for item in fields.get("suites", "").split() if item.split("/")[0] in suites]
        components = [item for item in fields.get("components", "").split() if item in known.components]
        uris = fields.get("uris", "")
        if not wanted or not components or not uris or "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed = fields.get("signed-by", "")
        if signed.startswith("/") and not Path(signed).name.startswith(known.keyring):
            continue
        has_release = has_release or codename in wanted
        stanza = {**fields, "types": "deb", "suites": " ".join(wanted), "components": " ".join(components)}
        found.append("".join(f"{key.title()}: {value}\n" for key, value in stanza.items()))
    return found if has_release else []


def _entries(folder: Path) -> Iterator[dict[str, str]]:
    parts = folder / "sources.list.d"
    lists = [folder / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for path in lists:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            yield from _stanzas(text)
        else:
            yield from filter(None, map(_one_line, text.splitlines()))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields, key = dict[str, str](), ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0].isspace() and key:  # a continued value, such as a key that is embedded
            fields[key] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.strip()


def _one_line(line: str) -> dict[str, str] | None:
    match = _ONE_LINE.match(line.strip())
    if match is None:
        return None
    fields = {
        "types": "deb",
        "uris": match["uri"],
        "suites": match["suite"],
        "components": match["components"],
    }
    # sources.list(5): the options are the same in both formats, but for "arch" and its like.
    names = {"arch": "architectures", "lang": "languages", "target": "targets"}
    for option in (match["options"] or "").split():
        name, _, value = option.partition("=")
        fields[names.get(name.lower(), name.lower())] = value.replace(",", " ")
    return fields

"""`search`: which servers there are; without words, which may be of use here."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import registry_ids
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write_json
from octave.errors import OctaveError, RegistryUnreachable
from octave.packages import info as facts
from octave.packages import manifest, recommend, registries, search
from octave.packages.entries import Entry
from octave.packages.info import BUNDLED
from octave.packages.mcp_registry import McpRegistry
from octave.packages.registry import Registry, bundled_folder

_SHOWN = 20
"""As many as fit on a screen."""


def search_servers(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="QUERY")] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many at most.")] = _SHOWN,
    category: Annotated[
        str | None, typer.Option("--category", help="Only servers of this category.")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="NAME",
            help="Only this one: `bundled`, one of octave.toml, or `official`.",
            autocompletion=registry_ids,
        ),
    ] = None,
) -> int:
    """Search the registries: the bundled one first, offline, then those in octave.toml.

    Without a query: servers that fit this folder and what is installed, with the reasons. The
    official MCP registry is asked with `--registry official`, or always after
    `octave registry add official`.
    """
    terms = manners(context)
    query = " ".join(words or ())
    if not query.strip() and category is None and registry is None:
        return _recommend(terms, limit)
    known, failures = _known(terms, query, registry)
    fitting = [entry for entry in known if _is_of(entry, category)]
    if query.strip():
        aliases = Registry(bundled_folder()).aliases()
        hits = search.search(query, fitting, aliases)
    else:
        hits = [search.Hit(entry, search.STRONG, 1.0) for entry in fitting]
    rows = [facts.summary(hit.entry) for hit in hits[:limit]]
    if terms.as_json:
        write_json(rows)
    else:
        _show(terms, hits, rows)
        if not hits and not failures:
            _console(terms, query, known, category)
    for failure in failures:
        tell_error(failure, as_json=terms.as_json)
    return failures[0].exit_code if failures else 0


def _known(
    terms: Manners, query: str, registry: str | None
) -> tuple[list[Entry], list[OctaveError]]:
    """Return the entries that may answer, in the order of their registries, and what failed."""
    found: list[Entry] = []
    failures: list[OctaveError] = []
    if registry in {None, BUNDLED}:
        entries, damaged = Registry(bundled_folder()).scan()
        found += entries
        for text in damaged:
            tell(f"warning: {safe(text)}")
    word = search.longest_word(query)
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        for each in _others(terms, registry, step):
            try:
                found += each.search(word)
            except RegistryUnreachable as error:
                failures.append(error)
    return found, failures


def _others(
    terms: Manners, registry: str | None, step: Callable[[str], None]
) -> Sequence[McpRegistry]:
    if registry == BUNDLED:
        return ()
    asking = registries.Asking(os.environ, warn=_warn(terms), progress=step)
    return registries.opened(terms.workspace(), asking, only=registry)


def _warn(terms: Manners) -> Callable[[str], None]:
    return lambda text: None if terms.quiet else tell(f"warning: {safe(text)}")


def _is_of(entry: Entry, category: str | None) -> bool:
    return category is None or category.lower() in entry.categories


def _show(terms: Manners, hits: Sequence[search.Hit], rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    if not terms.quiet and hits[0].grade == search.MISTYPED:
        tell("nothing is called so; this is what looks like it")
    if not terms.quiet and hits[0].grade == search.PARTLY:
        tell("nothing has all these words; this has some of them")
    _table(rows)
    if len(hits) > len(rows) and not terms.quiet:
        tell(f"{len(hits) - len(rows)} more; `--limit {len(hits)}` shows them all")
    if not terms.quiet:
        tell(f"next: `octave info {safe(rows[0]['name'])}`")


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("NAME", lambda row: row["name"]),
        ("WHAT IT DOES", _purpose),
        ("KIND", lambda row: row["kind"] or "-"),
        ("TOOLS", lambda row: "-" if row["tools"] is None else str(row["tools"])),
        ("START", lambda row: _seconds(row["startSeconds"])),
        ("MEMORY", lambda row: render.size(row["memoryBytes"])),
    ]
    if any(row["registry"] != BUNDLED for row in rows):
        columns.append(("REGISTRY", lambda row: row["registry"]))
    if any("reasons" in row for row in rows):
        columns.append(("BECAUSE", lambda row: "; ".join(row["reasons"])))
    render.table(
        [name for name, _ in columns], [[text(row) for _, text in columns] for row in rows]
    )


def _purpose(row: Mapping[str, Any]) -> str:
    text = row["description"] or row["title"]
    mark = ""
    if row["deprecated"]:
        replaced = f": use {row['replacedBy']}" if row["replacedBy"] else ""
        mark = f" (deprecated{replaced})"
    elif row["archived"]:
        mark = " (archived)"
    return f"{text}{mark}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _console(terms: Manners, query: str, known: Sequence[Entry], category: str | None) -> None:
    """Say what to do when nothing was found."""
    if category is not None and not any(_is_of(entry, category) for entry in known):
        subjects = sorted({one for entry in known for one in entry.categories})
        near = search.near_names(category, subjects)
        tell(f"no server is in the category `{safe(category)}`")
        tell(f"hint: {_meant(near) if near else 'there are ' + ', '.join(subjects)}")
        return
    bundled = Registry(bundled_folder())
    near = search.near_names(query, [*bundled.names(), *bundled.aliases()])
    tell(f"no server is found for `{safe(query)}`")
    if near:
        tell(f"hint: {_meant(near)}")
        return
    tell("hint: `octave search` alone suggests some, `--registry official` asks the official MCP")
    tell("  registry, and a package goes by its name: `octave install npm:PKG` or `pypi:PKG`")


def _meant(names: Sequence[str]) -> str:
    return f"did you mean {' or '.join(f'`{name}`' for name in names)}?"


def _recommend(terms: Manners, limit: int) -> int:
    workspace = terms.workspace()
    installed = manifest.load(workspace.manifest).servers
    found = recommend.recommend(
        Registry(bundled_folder()), list(installed), Path.cwd(), os.environ
    )[:limit]
    rows = [{**facts.summary(one.entry), "reasons": list(one.reasons)} for one in found]
    if terms.as_json:
        write_json(rows)
        return 0
    if not rows:
        tell("nothing here asks for a further server; `octave search QUERY` looks for one")
        return 0
    _table(rows)
    if not terms.quiet:
        tell(f"next: `{safe(rows[0]['install'] or 'octave info ' + rows[0]['name'])}`")
    return 0

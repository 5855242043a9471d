"""A runtime of the installed command, with a server of its own for each scene that is played."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Octave
from tests.transparency import questions, scenes
from tests.transparency.conversation import PROBE, Probe
from tests.transparency.scripts import Era, Scene

ERAS: tuple[Era, Era] = ("legacy", "modern")
SCENES = (*scenes.SCENES, *questions.SCENES)


@dataclass(frozen=True, slots=True)
class Case:
    scene: Scene
    client: Era
    server: Era

    def __str__(self) -> str:
        return f"{self.client}-{self.server}-{self.scene.name}"


SAME = [Case(each, era, era) for each in SCENES for era in each.eras]
CROSSED = [
    Case(each, era, other)
    for each in SCENES
    if each.is_bridged
    for era in ERAS
    for other in ERAS
    if era != other
]


class Runtime:
    """A runtime with a server for each case."""

    def __init__(self, folder: Path, cases: Iterable[Case]) -> None:
        self.octave = Octave(folder / "h", folder, {"HOME": str(folder)})
        self.probes = {
            str(case): Probe(folder / f"s{number}", case.scene, case.server, f"s{number}")
            for number, case in enumerate(cases)
        }
        self.octave.home.mkdir(mode=0o700)
        # Most are done with before the last one starts.
        text = ['[runtime]\nport = 0\nidle_timeout = "10s"\n']
        for probe in self.probes.values():
            command = json.dumps([sys.executable, "-S", os.fspath(PROBE), *probe.words])
            text.append(f"[servers.{probe.name}]\ncommand = {command}\n")
        (self.octave.home / "octave.toml").write_text("\n".join(text))

    def start(self) -> str:
        """Start it and return its URL."""
        return str(self.octave("serve", "--detach", "--json").document["url"])

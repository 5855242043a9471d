"""What wheels ask for, against what is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from octave.errors import IntegrityFailed
from octave.packages.requirements import require_whole
from octave.packages.wheels import Site


def site(folder: Path, packages: Mapping[str, Sequence[str]]) -> Site:
    for name, asked in packages.items():
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = [f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {text}" for text in asked)]
        text = "\n".join([*lines, "", "Requires-Dist: from-the-description"])
        (info / "METADATA").write_text(text, encoding="utf-8")
    return Site.at(folder)


WHOLE: Mapping[str, Sequence[str]] = {
    "Root_Server": ["Dep.One[fast]>=1", "absent; python_version < '3'", "old; extra == 'old'"],
    "dep-one": ["speed; extra == 'fast'", "Root.Server", "not really a requirement"],
    "speed": ["new; python_full_version >= '3.12.4'"],
    "new": [],
}


@pytest.mark.parametrize(
    ("root", "without", "more", "refused"),
    [
        ("root-server", (), {}, None),
        ("root-server", (), {"old": []}, None),
        ("root-server", (), {"evil": ["root-server"]}, "`evil` is nothing that `root-server`"),
        ("root-server", (), {"evil": ["wicked"], "wicked": ["evil"]}, "`evil` is nothing"),
        ("root-server", ("dep-one", "speed", "new"), {}, "needs `dep-one`, which the lockfile"),
        ("root-server", ("speed", "new"), {}, "needs `speed`, which the lockfile"),
        ("root-server", ("new",), {}, "needs `new`, which the lockfile"),
        ("root-server[old]", (), {}, "needs `old`, which the lockfile"),
    ],
)
def test_nothing_is_missing_and_nothing_is_there_that_nobody_asks_for(
    tmp_path, root, without, more, refused
):
    packages = {name: asked for name, asked in WHOLE.items() if name not in without} | more
    made = site(tmp_path, packages)
    if refused is None:
        require_whole(made, Requirement(root), "3.13.1")
        return
    with pytest.raises(IntegrityFailed, match=refused):
        require_whole(made, Requirement(root), "3.13.1")


def test_markers_are_those_of_the_interpreter_it_is_for(tmp_path):
    packages = {name: asked for name, asked in WHOLE.items() if name != "new"}
    require_whole(site(tmp_path, packages), Requirement("root-server"), "3.12.3")

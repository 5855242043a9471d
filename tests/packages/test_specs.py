import os
from pathlib import Path

import pytest

from octave.errors import NotTrusted, StartFailed
from octave.home import Home, Workspace
from octave.packages import lockfile, manifest, store, workspaces
from octave.packages.lockfile import Lock
from octave.packages.secrets import Secrets
from octave.packages.specs import launch_specs, missing_variables, policy_of
from octave.packages.store import Record

ENVIRON = {
    "PATH": "/usr/bin",
    "HOME": "/home/user",
    "LC_ALL": "C",
    "XDG_DATA_HOME": "/data",
    "SSL_CERT_FILE": "/ca.pem",
    "https_proxy": "http://proxy",
    "AWS_SECRET_ACCESS_KEY": "not yours",
    "OCTAVE_HOME": "/octave",
    "PYTHONPATH": "/evil",
    "SSH_AUTH_SOCK": "/agent",
}
PASSED = {"PATH", "HOME", "LC_ALL", "XDG_DATA_HOME", "SSL_CERT_FILE", "https_proxy"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.of_home(Home(tmp_path / "home"))
    workspace.prepare()
    return workspace


def write(workspace: Workspace, text: str) -> None:
    workspace.manifest.write_text(text, encoding="utf-8")


def place(workspace: Workspace, name: str = "x", **more: object) -> Path:
    """Install a version of `name` as far as launching can tell."""
    facts: dict[str, object] = {
        "name": name,
        "kind": "npm",
        "package": "x",
        "version": "1.0",
        "integrity": "sha512-a",
        "digest": "sha256:b",
        "command": ("{home}/runtimes/node", "{folder}/index.js"),
    }
    record = Record(**{**facts, **more})  # type: ignore[arg-type]
    staging = store.stage(workspace.home, name)
    for file in map(Path, store.absolute(record.command, staging, workspace.home)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    folder = store.publish(workspace.home, staging, record, "1.0-b")
    lockfile.write(workspace.lockfile, Lock("", {}))
    known = workspaces.installed(workspace)
    workspaces.remember(workspace, {**known, name: "1.0-b"})
    return folder


def test_an_installed_server_starts_by_absolute_paths(workspace: Workspace) -> None:
    folder = place(workspace, args=("--db", "{data}/x.db"), title="The X")
    write(workspace, '[servers.x]\npackage = "npm:x"\nargs = ["a b", "{data}"]\n')
    (spec,) = launch_specs(workspace, ENVIRON)
    data = str(workspace.data("x"))
    assert spec.argv == (
        f"{workspace.home.root}/runtimes/node",
        "--optimize-for-size",
        f"{folder}/index.js",
        "--db",
        f"{data}/x.db",
        "a b",
        "{data}",
    )
    assert (spec.cwd, spec.version, spec.digest) == (workspace.data("x"), "1.0", "sha256:b")
    assert (spec.title, spec.problem) == ("The X", None)


def test_a_server_gets_the_short_list_its_own_and_nothing_else(workspace: Workspace) -> None:
    place(workspace, kind="pypi", env={"DATA_FILE": "{data}/f", "MODE": "registry"})
    Secrets(workspace.home).set("x/TOKEN", "hush")
    write(
        workspace,
        '[servers.x]\npackage = "npm:x"\npass_env = ["SSH_AUTH_SOCK"]\n'
        'env = { MODE = "mine", TOKEN = { secret = "x/TOKEN" }, AGAIN = { env = "PATH" } }\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    assert spec.environment() == {
        **{name: ENVIRON[name] for name in PASSED},
        "SSH_AUTH_SOCK": "/agent",
        "DATA_FILE": f"{workspace.data('x')}/f",
        "MODE": "mine",
        "TOKEN": "hush",
        "AGAIN": "/usr/bin",
    }
    assert "hush" not in repr(spec)


@pytest.mark.parametrize("lost", ["runtimes/node", "servers/x/1.0-b/index.js"])
def test_what_starts_it_is_looked_for_at_each_start(workspace: Workspace, lost: str) -> None:
    place(workspace)
    write(workspace, '[servers.x]\npackage = "npm:x"\n')
    (spec,) = launch_specs(workspace, ENVIRON)
    spec.environment()
    path = workspace.home.root / lost
    path.unlink()
    with pytest.raises(StartFailed) as caught:
        spec.environment()
    assert caught.value.message == f"`x` cannot be started: `{path}` does not exist any more"
    assert caught.value.hint == "octave install"


def test_a_reference_is_resolved_anew_at_each_start(workspace: Workspace) -> None:
    place(workspace)
    write(workspace, '[servers.x]\npackage = "npm:x"\nenv = { TOKEN = { secret = "x/TOKEN" } }\n')
    (spec,) = launch_specs(workspace, ENVIRON)
    with pytest.raises(StartFailed, match="no such secret"):
        spec.environment()
    Secrets(workspace.home).set("x/TOKEN", "later")
    assert spec.environment()["TOKEN"] == "later"


def test_a_missing_variable_is_named_with_the_command_that_gives_it(workspace: Workspace) -> None:
    place(workspace, required_env=("X_KEY", "PATH"))
    write(workspace, '[servers.x]\npackage = "npm:x"\n')
    (spec,) = launch_specs(workspace, ENVIRON)
    with pytest.raises(StartFailed, match="`x` needs `X_KEY`") as caught:
        spec.environment()
    assert caught.value.hint == "octave install x -e X_KEY"
    assert caught.value.details == {"missing": ["X_KEY"]}


def test_the_command_for_missing_variables_gives_them_all(workspace: Workspace) -> None:
    place(workspace, required_env=("X_KEY", "X_TEAM"), env_one_of=(("A", "B"), ("C",)))
    write(workspace, '[servers.x]\npackage = "npm:x"\n')
    (spec,) = launch_specs(workspace, ENVIRON)
    with pytest.raises(StartFailed, match="`A with B or C`") as caught:
        spec.environment()
    assert caught.value.hint == "octave install x -e X_KEY -e X_TEAM -e A -e B"


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({}, ["K", "A or B with C"]),
        ({"K": "1", "A": "1"}, []),
        ({"K": "1", "B": "1"}, ["A or B with C"]),
        ({"K": "1", "B": "1", "C": "1"}, []),
        ({"K": "", "A": "1"}, ["K"]),
    ],
)
def test_one_whole_group_of_a_choice_must_be_set(
    environment: dict[str, str], missing: list[str]
) -> None:
    groups = (("A",), ("B", "C"))
    record = Record("x", "npm", "x", "1", "", "", (), required_env=("K",), env_one_of=groups)
    assert missing_variables(record, environment) == missing


def test_what_is_not_installed_is_a_problem_of_that_server_alone(workspace: Workspace) -> None:
    place(workspace)
    write(workspace, '[servers.gone]\npackage = "npm:gone"\n[servers.x]\npackage = "npm:x"\n')
    gone, spec = launch_specs(workspace, ENVIRON)
    assert isinstance(gone.problem, StartFailed)
    assert gone.problem.hint == "octave install"
    assert spec.problem is None


def test_a_damaged_record_is_a_problem_of_that_server_alone(workspace: Workspace) -> None:
    (place(workspace, "y") / store.RECORD).write_text("{", encoding="utf-8")
    place(workspace)
    write(workspace, '[servers.y]\npackage = "npm:y"\n[servers.x]\npackage = "npm:x"\n')
    damaged, spec = launch_specs(workspace, ENVIRON)
    assert "not installed" in str(damaged.problem)
    assert spec.problem is None


def test_a_data_folder_that_others_can_write_is_a_problem_of_that_server_alone(
    workspace: Workspace,
) -> None:
    place(workspace, "y")
    place(workspace)
    workspace.data("y").mkdir()
    workspace.data("y").chmod(0o777)
    write(workspace, '[servers.y]\npackage = "npm:y"\n[servers.x]\npackage = "npm:x"\n')
    open_to_all, spec = launch_specs(workspace, ENVIRON)
    assert open_to_all.problem is not None
    assert "other users" in open_to_all.problem.message
    assert spec.problem is None


def test_a_disabled_server_is_not_there(workspace: Workspace) -> None:
    write(workspace, '[servers.x]\npackage = "npm:x"\nenabled = false\n')
    assert launch_specs(workspace, ENVIRON) == []


def test_a_command_of_ones_own_needs_no_installation(workspace: Workspace) -> None:
    write(
        workspace,
        '[servers.own]\ncommand = ["node", { env = "SSH_AUTH_SOCK" }]\nargs = ["x"]\ncwd = "sub"\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    assert spec.argv == ("node", "/agent", "x")
    assert spec.cwd == workspace.manifest.parent / "sub"


def test_a_projects_servers_start_after_trust_only(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = Workspace(workspace.home, tmp_path / "project" / "octave.toml")
    write(project, '[servers.own]\ncommand = ["true"]\n')
    with pytest.raises(NotTrusted):
        launch_specs(project, ENVIRON)
    workspaces.trust(project, manifest.load(project.manifest))
    assert [spec.name for spec in launch_specs(project, ENVIRON)] == ["own"]
    write(project, '[servers.own]\ncommand = ["false"]\n')
    with pytest.raises(NotTrusted, match="changed since"):
        launch_specs(project, ENVIRON)


def test_the_policy_says_what_the_manifest_says(workspace: Workspace) -> None:
    write(
        workspace,
        '[runtime]\nidle_timeout = "1m"\nstart_timeout = "7s"\nhealth_interval = "9s"\n'
        '[servers.a]\ncommand = ["true"]\n'
        '[servers.b]\ncommand = ["true"]\nidle_timeout = "2m"\nauto_restart = false\n'
        '[servers.c]\ncommand = ["true"]\nauto_start = true\n'
        'memory_limit = "1MB"\nreplay = true\n',
    )
    wanted = manifest.load(workspace.manifest)
    a, b, c = (policy_of(wanted, server) for server in wanted.servers.values())
    assert (a.idle_timeout_s, b.idle_timeout_s, c.idle_timeout_s) == (60.0, 120.0, None)
    assert (a.auto_restart, b.auto_restart, c.auto_start) == (True, False, True)
    assert (a.start_timeout_s, a.health_interval_s) == (7.0, 9.0)
    assert (a.memory_limit_bytes, a.replay) == (None, False)
    assert (c.memory_limit_bytes, c.replay) == (10**6, True)


def test_nothing_of_this_process_environment_is_read(workspace: Workspace) -> None:
    write(workspace, '[servers.own]\ncommand = ["true"]\n')
    (spec,) = launch_specs(workspace, {})
    assert spec.environment() == {}
    assert os.environ


def test_values_that_must_not_be_shown_are_known_by_name(workspace: Workspace) -> None:
    Secrets(workspace.home).set("x/A", "stored")
    (workspace.manifest.parent / "file.txt").write_text("from a file\n", encoding="utf-8")
    write(
        workspace,
        '[servers.x]\ncommand = ["/bin/x", { file = "file.txt" }]\nargs = [{ env = "HOME" }]\n'
        'pass_env = ["AWS_SECRET_ACCESS_KEY", "LANG"]\n'
        'env = { A = { secret = "x/A" }, B = { file = "file.txt" }, C = { env = "PATH" }, '
        'D = "plain", MY_TOKEN = "literal" }\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    assert spec.secret_variables == {"A", "B", "MY_TOKEN", "AWS_SECRET_ACCESS_KEY"}
    assert spec.secrets_of(spec.environment()) == {"stored", "from a file", "literal", "not yours"}


def test_the_registry_has_the_last_word_on_what_must_not_be_shown(workspace: Workspace) -> None:
    for name in ("google-workspace", "other"):
        place(workspace, name, kind="pypi", package="workspace-mcp")
    text = 'package = "pypi:workspace-mcp"\nenv = { GOOGLE_OAUTH_CLIENT_ID = "x" }\n'
    write(workspace, f"[servers.google-workspace]\n{text}[servers.other]\n{text}")
    specs = {spec.name: spec for spec in launch_specs(workspace, ENVIRON)}
    assert specs["google-workspace"].secret_variables == {"GOOGLE_OAUTH_CLIENT_ID"}
    # Under another name the variable has to speak for itself.
    assert specs["other"].secret_variables == set()


def test_a_remote_server_is_an_address_and_headers_resolved_anew(workspace: Workspace) -> None:
    write(
        workspace,
        '[servers.x]\nurl = "https://mcp.example/mcp?k=1"\n'
        'headers = { "X-Team" = "seven", "X-Pass" = { secret = "x/PASS" } }\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    endpoint = spec.endpoint
    assert endpoint is not None
    assert (endpoint.url, spec.problem, spec.argv) == ("https://mcp.example/mcp?k=1", None, ())
    with pytest.raises(StartFailed, match="no such secret"):
        endpoint.headers()
    Secrets(workspace.home).set("x/PASS", "hush-hush")
    assert endpoint.headers() == {"X-Team": "seven", "X-Pass": "hush-hush"}
    assert endpoint.secret_headers == {"X-Pass"}
    assert "hush-hush" not in repr(spec)
    assert endpoint.tokens is not None


def test_the_catalogue_of_a_remote_server_is_kept_by_its_address(workspace: Workspace) -> None:
    write(workspace, '[servers.x]\nurl = "https://a.example/"\n')
    (one,) = launch_specs(workspace, ENVIRON)
    write(workspace, '[servers.x]\nurl = "https://a.example/"\nheaders = { A = "b" }\n')
    (same,) = launch_specs(workspace, ENVIRON)
    write(workspace, '[servers.x]\nurl = "https://b.example/"\n')
    (other,) = launch_specs(workspace, ENVIRON)
    assert one.digest == same.digest != other.digest
    assert one.fingerprint != same.fingerprint


def test_a_pin_is_no_reason_to_restart_a_server(workspace: Workspace) -> None:
    place(workspace)
    found = []
    for more in ("", "pinned = true\n", "replay = true\n"):
        write(workspace, f'[servers.x]\npackage = "npm:x"\n{more}')
        (spec,) = launch_specs(workspace, ENVIRON)
        found.append(spec.fingerprint)
    assert found[0] == found[1] != found[2]


def test_who_says_who_asks_is_never_logged_in(workspace: Workspace) -> None:
    write(
        workspace,
        '[servers.x]\nurl = "https://a.example/"\nheaders = { authorization = "Bearer mine" }\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    assert spec.endpoint is not None
    assert spec.endpoint.tokens is None
    assert spec.endpoint.secret_headers == {"authorization"}


def test_a_header_that_leads_to_no_text_is_named_without_it(workspace: Workspace) -> None:
    Secrets(workspace.home).set("x/K", "hush\nX-Evil: 1")
    write(
        workspace,
        '[servers.x]\nurl = "https://a.example/"\nheaders = { K = { secret = "x/K" } }\n',
    )
    (spec,) = launch_specs(workspace, ENVIRON)
    assert spec.endpoint is not None
    with pytest.raises(StartFailed, match="the value for the header `K`") as caught:
        spec.endpoint.headers()
    assert "hush" not in caught.value.message

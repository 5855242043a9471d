"""`octave export`: every text is read again by something that did not write it."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.desk import CHECKOUT, SERVERS, WAIT_S, Desk, Done
from tests.cli.yaml_reader import documents

E2E = CHECKOUT / "tests" / "e2e"
SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
PASSWORD = "correct-horse-battery"
MORE = f"""
[servers.own]
command = ["{sys.executable}", "{SERVERS / "good.py"}", "--api-key", "{SECRET}"]

[servers.linear]
url = "https://mcp.linear.app/mcp"
headers = {{ Authorization = {{ env = "LINEAR_AUTH" }}, X-Team = "a$b" }}

[servers.off]
command = ["nothing"]
enabled = false

[profiles.work]
servers = ["memory", "own"]
"""
EXTRA = {
    "fetch": 'env.KEY = { secret = "fetch/KEY" }\n',
    "git": f"""
env.TOKEN = {{ secret = "git/TOKEN" }}
env.KEY = {{ env = "KEY" }}
env.OTHER_TOKEN = {{ file = "/run/other" }}
env.DB_PASSWORD = "{PASSWORD}"
env.LOG = "{{x: $1}}"
pass_env = ["SSH_AUTH_SOCK"]
""",
}
FORMATS = ("compose", "kubernetes", "systemd", "mcp-json")


def golden(desk: Desk) -> dict[str, Any]:
    """Make the golden servers, and others, those of the home; return what its manifest says."""
    text = (E2E / "golden.toml").read_text(encoding="utf-8").replace("{workdir}", "/srv")
    for name, lines in EXTRA.items():
        text = text.replace(f"[servers.{name}]\n", f"[servers.{name}]\n{lines}")
    (desk.home / "octave.toml").write_text(text + MORE, encoding="utf-8")
    shutil.copy(E2E / "golden.lock", desk.home / "octave.lock")
    found: dict[str, Any] = tomllib.loads(text + MORE)["servers"]
    return found


def pins() -> dict[str, dict[str, Any]]:
    lock = tomllib.loads((E2E / "golden.lock").read_text(encoding="utf-8"))
    return {pin["name"]: pin for pin in lock["server"]}


def exported(desk: Desk, *words: str) -> Done:
    done = desk.octave("export", *words)
    assert done.code == 0, done.stderr
    # The desk shows its root as ROOT.
    return Done(0, *(text.replace("ROOT", str(desk.root)) for text in (done.stdout, done.stderr)))


def test_import_reads_mcp_json_as_the_servers_that_it_was_made_from(desk: Desk) -> None:
    wanted = golden(desk)
    text = exported(desk, "mcp-json").stdout
    assert list(json.loads(text)) == ["mcpServers"]
    (desk.root / ".claude.json").write_text(text, encoding="utf-8")
    home = {"OCTAVE_HOME": str(desk.root / "other")}
    done = desk.octave("import", "claude", "--dry-run", "--json", environ=home)
    assert done.json["skipped"] == []
    found = {each["name"]: each["server"] for each in done.json["results"]}
    assert found.keys() == wanted.keys() - {"off"}
    for name, pin in pins().items():
        server = found[name]
        assert server["package"] == wanted[name]["package"]
        assert server["version"].removeprefix("==") == pin["version"]
        assert server.get("args", []) == wanted[name].get("args", [])
        assert server.get("constraints", []) == pin.get("constraints", [])
        assert "bin" not in server
        if name not in {"git", "fetch"}:
            assert server.get("env", {}) == wanted[name].get("env", {})
    assert found["git"]["env"] == {
        "SSH_AUTH_SOCK": {"env": "SSH_AUTH_SOCK"},
        "TOKEN": {"env": "TOKEN"},
        "KEY": {"env": "KEY"},
        "OTHER_TOKEN": {"env": "OTHER_TOKEN"},
        "DB_PASSWORD": {"env": "DB_PASSWORD"},
        "LOG": "{x: $1}",
    }
    # What is meant differently does not get one variable.
    assert found["fetch"]["env"] == {"KEY": {"env": "FETCH_KEY"}}
    assert found["linear"]["url"] == "https://mcp.linear.app/mcp"
    assert found["linear"]["headers"] == {"Authorization": {"env": "LINEAR_AUTH"}, "X-Team": "a$b"}
    assert found["own"]["command"][:3] == [sys.executable, str(SERVERS / "good.py"), "--api-key"]


def test_through_octave_each_entry_starts_the_proxy_of_its_server(desk: Desk) -> None:
    golden(desk)
    text = exported(desk, "mcp-json", "--proxy", "own").stdout
    (entry,) = json.loads(text)["mcpServers"].values()
    assert entry["args"][-2:] == ["proxy", "own"]
    assert entry["env"] == {"OCTAVE_HOME": str(desk.home)}
    assert Path(entry["command"]).is_absolute()


@pytest.mark.parametrize("format_", FORMATS)
def test_no_secret_leaves_and_what_has_to_be_given_is_told(desk: Desk, format_: str) -> None:
    golden(desk)
    done = exported(desk, format_, "--json")
    assert SECRET not in done.stdout
    assert PASSWORD not in done.stdout
    assert done.json.keys() == {"format", "text", "servers", "notes", "file"}
    told = done.json["text"] + "\n".join(done.json["notes"])
    assert "LINEAR_AUTH" in told
    # A unit runs here, where the secrets are.
    assert ("FETCH_KEY" in told) == (format_ != "systemd")


def test_compose_builds_what_the_manifest_and_the_lockfile_say(desk: Desk) -> None:
    golden(desk)
    done = exported(desk, "compose")
    (document,) = documents(done.stdout)
    service = document["services"]["octave"]
    assert service["environment"] == {
        "OCTAVE_TOKEN": "${OCTAVE_TOKEN:?set it in .env}",
        "FETCH_KEY": "${FETCH_KEY:?set it in .env}",
        "TOKEN": "${TOKEN:?set it in .env}",
        "KEY": "${KEY:?set it in .env}",
        "OTHER_TOKEN": "${OTHER_TOKEN:?set it in .env}",
        "DB_PASSWORD": "${DB_PASSWORD:?set it in .env}",
        "SSH_AUTH_SOCK": "${SSH_AUTH_SOCK:-}",
        "LINEAR_AUTH": "${LINEAR_AUTH:?set it in .env}",
    }
    assert service["ports"] == ["127.0.0.1:3737:3737"]
    # Compose replaces variables in every text, so each dollar that is meant stands twice.
    build = service["build"]["dockerfile_inline"]
    assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", build)
    files = dict(re.findall(r'<<"END_OF_FILE" (\S+)\n(.*?)END_OF_FILE\n', build, re.DOTALL))
    manifest, lock = (text.replace("$$", "$") for text in files.values())
    assert [Path(name).name for name in files] == ["octave.toml", "octave.lock"]
    said = tomllib.loads(manifest)
    assert said["runtime"]["token"] == {"env": "OCTAVE_TOKEN"}
    assert said["servers"]["git"]["env"]["LOG"] == "{x: $1}"
    assert said["profiles"] == {"work": {"servers": ["memory"]}}
    assert "own" not in said["servers"]
    assert (
        f"note: `own` is left out: `{sys.executable}` is a program of this machine" in done.stderr
    )
    assert "note: `git`: `/srv/repo` is a path of this machine; mount it there" in done.stderr
    check_it_serves(desk, manifest, lock, [*service["environment"]])


def check_it_serves(desk: Desk, manifest: str, lock: str, variables: list[str]) -> None:
    """The two files are a home from which other machines can be served, and nothing is stale."""
    home = desk.root / "c"
    home.mkdir(mode=0o700)
    (home / "octave.toml").write_text(manifest, encoding="utf-8")
    (home / "octave.lock").write_text(lock, encoding="utf-8")
    environ = {"OCTAVE_HOME": str(home), **dict.fromkeys(variables, "x" * 43)}
    done = desk.octave("lock", "--check", environ=environ)
    assert done.code == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--host", "0.0.0.0", "--allow-remote", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "octave", *words],
        cwd=desk.cwd,
        env={**desk.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        lines = iter(child.stdout.readline, "")
        assert any(line.startswith("ready on ") for line in lines)
        for host in (f"localhost:{port}", "octave:3737"):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/health", headers={"Host": host}
            )
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                assert answer.status == 200
        child.terminate()
        child.stdout.read()


def test_kubernetes_resources_belong_together_and_hold_no_value(desk: Desk) -> None:
    golden(desk)
    text = exported(desk, "kubernetes", "memory", "git", "linear").stdout
    secret, config, claim, deployment, service = documents(text)
    assert [each["kind"] for each in (secret, config, claim, deployment, service)] == [
        "Secret",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
    ]
    assert set(secret["stringData"].values()) == {""}
    assert {"OCTAVE_TOKEN", "TOKEN", "LINEAR_AUTH"} <= secret["stringData"].keys()
    said = tomllib.loads(config["data"]["octave.toml"])
    locked = tomllib.loads(config["data"]["octave.lock"])["server"]
    assert list(said["servers"]) == ["memory", "git", "linear"]
    assert sorted(pin["name"] for pin in locked) == ["git", "memory"]
    pod = deployment["spec"]["template"]["spec"]
    (install,), (octave,) = pod["initContainers"], pod["containers"]
    # What fetches packages is given no secret.
    assert "envFrom" not in install
    assert octave["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    volumes = {each["name"] for each in pod["volumes"]}
    assert {each["name"] for each in octave["volumeMounts"]} == volumes
    assert pod["securityContext"]["runAsNonRoot"] is True
    (header,) = octave["livenessProbe"]["httpGet"]["httpHeaders"]
    assert header == {"name": "Host", "value": "localhost:3737"}
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    subprocess.run(["sh", "-n", "-c", install["command"][2]], check=True)


@pytest.mark.parametrize("is_system", [False, True], ids=["user", "system"])
def test_a_unit_runs_this_manifest_whatever_its_folder_is_called(
    desk: Desk, *, is_system: bool
) -> None:
    folder = desk.root / 'a "b" 100% $HOME \\x'
    folder.mkdir()
    (folder / "octave.toml").write_text(
        '[servers.own]\ncommand = ["x"]\nenv = { KEY = { env = "MY_KEY" } }\n', encoding="utf-8"
    )
    words = ["--system"] if is_system else []
    text = exported(desk, "systemd", *words, "--manifest", str(folder)).stdout
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    keys = dict(line.split("=", 1) for line in lines if not line.startswith("Environment="))
    argv = shlex.split(keys["ExecStart"].replace("%%", "%").replace("$$", "$"), posix=True)
    assert argv[-3:] == ["serve", "--manifest", str(folder / "octave.toml")]
    assert ("User" in keys) == is_system
    assert keys["WantedBy"] == ("multi-user.target" if is_system else "default.target")
    assert "#     MY_KEY=" in text
    assert f"Environment=OCTAVE_HOME={desk.home}" in lines
    # Every line is one that systemd.service(5), systemd.exec(5), systemd.kill(5) or
    # systemd.unit(5) know.
    assert keys.keys() <= UNIT_KEYS
    if shutil.which("systemd-analyze"):
        unit = desk.root / "octave-test.service"
        unit.write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", *([] if is_system else ["--user"]), str(unit)],
            env={**desk.environ, "XDG_RUNTIME_DIR": str(desk.root)},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert str(unit.name) not in done.stderr


UNIT_KEYS = frozenset(
    re.findall(
        r"\w+",
        """
        Description Wants After WantedBy Type User ExecStart ExecReload EnvironmentFile Restart
        RestartSec KillMode TimeoutStopSec UMask NoNewPrivileges LockPersonality RestrictRealtime
        RestrictSUIDSGID SystemCallArchitectures CapabilityBoundingSet ProtectSystem ProtectClock
        ProtectHostname ProtectControlGroups ProtectKernelLogs ProtectKernelModules
        ProtectKernelTunables PrivateDevices
        """,
    )
)


def test_a_file_is_replaced_only_when_that_is_asked_for(desk: Desk) -> None:
    golden(desk)
    file = desk.cwd / "mcp.json"
    done = desk.octave("export", "mcp-json", "memory", "-o", "mcp.json", "-q")
    assert done.told == (0, "", "")
    before = file.read_bytes()
    assert list(json.loads(before)["mcpServers"]) == ["memory"]
    done = desk.octave("export", "mcp-json", "time", "-o", "mcp.json")
    assert done.told == (
        2,
        "",
        "error: `mcp.json` is there already\nhint: use `--force` to replace it\n",
    )
    assert file.read_bytes() == before
    assert desk.octave("export", "mcp-json", "time", "-o", "mcp.json", "--force", "-q").code == 0
    assert list(json.loads(file.read_bytes())["mcpServers"]) == ["time"]


def test_what_cannot_be_exported_is_refused_with_the_reason(desk: Desk) -> None:
    assert desk.octave("export", "compose").told[0] == 1
    golden(desk)
    for words, code, said in (
        (["compose", "memry"], 4, "did you mean `memory`?"),
        (["systemd", "memory"], 2, "takes no names"),
        (["compose", "--proxy"], 2, "`--proxy` goes with `mcp-json`"),
        (["kubernetes", "own"], 1, "none of the servers works in a container"),
    ):
        done = desk.octave("export", *words)
        assert (done.code, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr
    with (desk.home / "octave.toml").open("a", encoding="utf-8") as file:
        file.write('[servers.new]\npackage = "npm:new"\n')
    done = desk.octave("export", "mcp-json")
    assert (done.code, done.stdout) == (7, "")
    assert done.stderr == "error: `octave.lock` does not answer `new`\nhint: octave install\n"

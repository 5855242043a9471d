import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octave.errors import ManifestError
from octave.packages.manifest import (
    Reference,
    RegistryEntry,
    ServerEntry,
    Value,
    load,
)
from octave.packages.manifest_edit import add_server, remove_server
from octave.settings import Settings

WHOLE = """\
[runtime]                      # all optional; these are the defaults
host = "127.0.0.1"
port = 3737                    # 0: any
idle_timeout = "5m"            # of a server; "never" to keep running
runtime_idle = "10m"
health_interval = "30s"
start_timeout = "30s"
call_timeout = "5m"
call_timeout_max = "1h"
tool_cache = "1m"
log_rotate = "100MB"
log_keep = 5
max_message = "16MiB"
definitions = "warn"
token = { file = "token" }
allowed_hosts = []

[servers.github]               # only package, command or url is needed; the rest are examples
package = "npm:@modelcontextprotocol/server-github"
version = "*"
constraints = ["mcp<2"]
bin = "mcp-server-github"
node_flags = ["--max-old-space-size=4096"]
args = ["--root", { env = "ROOT" }]
env = { GITHUB_PERSONAL_ACCESS_TOKEN = { secret = "github/GITHUB_PERSONAL_ACCESS_TOKEN" } }
pass_env = ["SSH_AUTH_SOCK"]
auto_start = true
auto_restart = true
idle_timeout = "never"
instance = "auto"
memory_limit = "512MB"
replay = true
tools = { deny = ["delete_*"] }
enabled = true

[servers.notes]
command = ["node", "./server.js"]
cwd = "."

[servers.linear]
url = "https://mcp.linear.app/mcp"
headers = { Authorization = { env = "LINEAR_AUTH" } }

[profiles.work]
servers = ["github", "linear"]

[registries.company]
url = "https://mcp.example.com"
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "octave.toml"


def error_of(path: Path, text: str) -> ManifestError:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    assert caught.value.details["path"] == str(path)
    return caught.value


def hashes(path, text):
    path.write_text(text, encoding="utf-8")
    manifest = load(path)
    return manifest.servers_hash, manifest.trust_hash


def test_a_missing_file_says_nothing(path):
    manifest = load(path)
    assert (manifest.path, manifest.settings, manifest.servers) == (path, Settings(), {})
    assert (manifest.profiles, manifest.registries) == ({}, {})
    path.touch()
    assert load(path) == manifest


def test_every_documented_key_is_read(path):
    path.write_text(WHOLE, encoding="utf-8")
    manifest = load(path)
    assert manifest.settings == Settings(port=3737, token=Reference("file", "token"))
    assert manifest.servers == {
        "github": ServerEntry(
            name="github",
            package="npm:@modelcontextprotocol/server-github",
            version="*",
            constraints=("mcp<2",),
            executable="mcp-server-github",
            node_flags=("--max-old-space-size=4096",),
            args=("--root", Reference("env", "ROOT")),
            env={
                "GITHUB_PERSONAL_ACCESS_TOKEN": Reference(
                    "secret", "github/GITHUB_PERSONAL_ACCESS_TOKEN"
                )
            },
            pass_env=("SSH_AUTH_SOCK",),
            auto_start=True,
            idle_timeout_s=None,
            memory_limit_bytes=512_000_000,
            replay=True,
            tools_deny=("delete_*",),
        ),
        "notes": ServerEntry(name="notes", command=("node", "./server.js"), cwd="."),
        "linear": ServerEntry(
            name="linear",
            url="https://mcp.linear.app/mcp",
            headers={"Authorization": Reference("env", "LINEAR_AUTH")},
        ),
    }
    assert list(manifest.servers) == ["github", "notes", "linear"]
    assert manifest.profiles == {"work": ("github", "linear")}
    assert manifest.registries == {"company": RegistryEntry("https://mcp.example.com")}


def test_the_runtimes_idle_timeout_is_the_default_but_for_servers_started_with_it(path):
    path.write_text(
        '[servers.a]\npackage = "npm:a"\n'
        '[servers.b]\npackage = "npm:b"\nauto_start = true\n'
        '[servers.c]\npackage = "npm:c"\nauto_start = true\nidle_timeout = "1m"\n',
        encoding="utf-8",
    )
    found = [entry.idle_timeout_s for entry in load(path).servers.values()]
    assert found == ["runtime", None, 60.0]


def test_a_byte_order_mark_and_windows_line_breaks_are_read(path):
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert len(load(path).servers) == 3


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            '# x\n[servers.x]\npackage = "npm:x"\npakage = 1\n',
            (4, 1),
            "unknown key `pakage` in [servers.x]; did you mean `package`?",
        ),
        ("[runtim]\n", (1, 1), "unknown key `runtim`; did you mean `runtime`?"),
        ("[runtime]\n  prot = 1\n", (2, 3), "unknown key `prot` in [runtime]; did you mean `port`"),
        (
            '[servers]\nx = { package = "npm:x", pass_evn = [] }\n',
            (2, 26),
            "unknown key `pass_evn` in [servers.x]; did you mean `pass_env`?",
        ),
        (
            'servers.x.package = "npm:x"\nservers.x.tools.alow = []\n',
            (2, 17),
            "unknown key `tools.alow` in [servers.x]; did you mean `allow`?",
        ),
        (
            '[servers.x]\npackage = "npm:x"\n[servers.x.env]\nA = { scret = "x/A" }\n',
            (4, 7),
            "unknown key `env.A.scret` in [servers.x]; did you mean `secret`?",
        ),
        ("[profiles.p]\nserver = []\n", (2, 1), "unknown key `server` in [profiles.p]; did you"),
        ("[registries.r]\nurls = 1\n", (2, 1), "unknown key `urls` in [registries.r]; did you"),
        ("servers = 1\n", (1, 1), "[servers] must be a table, not an integer"),
        ("[[servers]]\n", (1, 1), "[servers] must be a table, not an array"),
        ("[servers]\nx = 1\n", (2, 1), "[servers.x] must be a table, not an integer"),
        ("[[servers.x]]\n", (1, 1), "[servers.x] must be a table, not an array"),
        ("[profiles.p]\n", (1, 1), "[profiles.p] needs the key `servers`"),
        ("[registries.r]\n", (1, 1), "[registries.r] needs the key `url`"),
        (
            '[servers.x]\nargs = [\n  "a",\n  1,\n]\npackage = "npm:x"\n',
            (4, 3),
            '`args.1` in [servers.x] must be a string or { secret = "..." }, not an integer',
        ),
        (
            '[servers.x]\npackage = "npm:x"\nenv = { A = 1 }\n',
            (3, 9),
            '`env.A` in [servers.x] must be a string or { secret = "..." }, not an integer',
        ),
        (
            '[servers.x]\npackage = "npm:x"\nenabled = "yes"\n',
            (3, 1),
            "`enabled` in [servers.x] must be true or false, not a string",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nenabled = 2020-01-01\n',
            (3, 1),
            "`enabled` in [servers.x] must be true or false, not a date or time",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nmemory_limit = "much"\n',
            (3, 1),
            '`memory_limit` in [servers.x]: "much" is not a size such as',
        ),
        (
            '[servers.x]\npackage = "npm:x"\nidle_timeout = "5 minutes"\n',
            (3, 1),
            '`idle_timeout` in [servers.x]: "5 minutes" is not a duration such as',
        ),
        (
            '[servers.x]\npackage = "npm:x"\ninstance = "one"\n',
            (3, 1),
            '`instance` in [servers.x] must be one of auto, shared, session, not "one"',
        ),
        (
            '[servers.x]\npackage = "left-pad"\n',
            (2, 1),
            '`package` in [servers.x]: "left-pad" is not KIND:NAME, such as "npm:NAME"',
        ),
        (
            '[servers.x]\npackage = "pypi:x"\nversion = "^1.2"\n',
            (3, 1),
            '`version` in [servers.x]: "^1.2" is an npm range; for a PyPI package write ">=1.2,<2"',
        ),
        (
            '[servers.x]\nversion = "1"\n',
            (1, 1),
            "[servers.x] needs exactly one of package, command, url; it has none of them",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nurl = "https://x"\n',
            (1, 1),
            "[servers.x] needs exactly one of package, command, url; it has package and url",
        ),
        (
            '[servers.x]\ncommand = ["x"]\nversion = "1"\n',
            (3, 1),
            "`version` in [servers.x] goes with package, not with command",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nheaders = {}\n',
            (3, 1),
            "`headers` in [servers.x] goes with url, not with package",
        ),
        (
            '[servers.x]\ncommand = ["node"]\nnode_flags = []\n',
            (3, 1),
            "`node_flags` in [servers.x] goes with package, not with command",
        ),
        (
            '[servers.x]\nnode_flags = []\npackage = "pypi:x"\n',
            (2, 1),
            "`node_flags` in [servers.x] goes with npm packages and bundles alone",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nnode_flags = [\n  "--jitless",\n  "evil.js",\n]\n',
            (5, 3),
            '`node_flags.1` in [servers.x]: "evil.js" is not a flag such as "--max-old-space-size',
        ),
        (
            '[servers.x]\npackage = "npm:x"\nnode_flag = []\n',
            (3, 1),
            "unknown key `node_flag` in [servers.x]; did you mean `node_flags`?",
        ),
        ("[servers.x]\ncommand = []\n", (2, 1), "`command` in [servers.x] must name a program"),
        ('[servers.x]\nurl = "javascript:x"\n', (2, 1), '`url` in [servers.x]: "javascript:x" is'),
        (
            '[servers.x]\nurl = "https://x"\nheaders = { A = "b\\r\\nc" }\n',
            (3, 13),
            "`headers.A` in [servers.x] must be printable ASCII",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nenv = { "A=B" = "" }\n',
            (3, 9),
            '`env."A=B"` in [servers.x]: "A=B" cannot be the name of an environment variable',
        ),
        (
            '[servers.x]\npackage = "npm:x"\nargs = ["\\u0000"]\n',
            (3, 9),
            "`args.0` in [servers.x] must not contain a NUL character",
        ),
        (
            '[servers.x]\npackage = "npm:x"\nconstraints = ["-r x"]\n',
            (3, 16),
            '`constraints.0` in [servers.x]: "-r x" is not a limit such as "mcp<2"',
        ),
        (
            '[servers."g\u0456thub"]\npackage = "npm:x"\n',
            (1, 1),
            '[servers."g\u0456thub"]: a server\'s name must be ASCII, it has a CYRILLIC',
        ),
        ('[servers."../x"]\n', (1, 1), '[servers."../x"]: a server\'s name is 1 to 40 of a-z'),
        ("a = 1\na = 2\n", (2, 6), "it is not TOML: Cannot overwrite a value"),
        ("[servers.x]\npackage = \n", (2, 11), "it is not TOML: Invalid value"),
        ("[servers.x\n", (1, 11), "it is not TOML: Expected ']'"),
        ("x = [", (1, 6), "it is not TOML: "),
        ("x = " + "[" * 5000, (1, 1), "it is nested too deeply"),
        ("x = " + "9" * 5000, (1, 1), "it is not TOML: "),
    ],
)
def test_an_error_names_line_column_and_what_is_meant(path, text, place, message):
    error = error_of(path, text)
    line, column = place
    assert error.message.startswith(f"`octave.toml` line {line}, column {column}: {message}")
    assert (error.details["line"], error.details["column"]) == place
    assert error.hint == f"edit `{path}`"


def test_text_that_is_no_utf8_is_an_error_with_its_place(path):
    path.write_bytes(b"# a\n# \xc3\xa4\xff")
    with pytest.raises(ManifestError, match="line 2, column 4: it is not UTF-8 text"):
        load(path)


def test_a_folder_or_pipe_in_its_place_is_an_error(path, tmp_path):
    with pytest.raises(ManifestError, match="it is not a file"):
        load(tmp_path)
    os.mkfifo(path)
    with pytest.raises(ManifestError, match="it is not a file"):
        load(path)


def test_a_path_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="cannot be read: Not a directory"):
        load(tmp_path / "file" / "octave.toml")
    with pytest.raises(ManifestError, match="cannot be read"):
        load(tmp_path / "a\0b")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ManifestError, match="cannot be read"):
        load(tmp_path / "loop")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_an_error(path):
    path.touch(mode=0o000)
    with pytest.raises(ManifestError, match="cannot be read: Permission denied"):
        load(path)


def test_a_wrong_value_of_a_variable_is_not_shown(path):
    error = error_of(path, '[servers.x]\npackage = "npm:x"\nenv = { A = "hush\\u0000" }\n')
    assert "hush" not in str(error.as_json())


def _tolerates(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(ManifestError):
        load(path)


SHARED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)


@SHARED
@given(content=st.binary(max_size=200))
def test_whatever_bytes_a_file_has_only_manifest_errors_leave(path, content):
    _tolerates(path, content)


@SHARED
@given(at=st.integers(0, len(WHOLE)), length=st.integers(0, 12), text=st.text(max_size=4))
def test_whatever_is_typed_into_a_manifest_only_manifest_errors_leave(path, at, length, text):
    typed = WHOLE[:at] + text + WHOLE[at + length :]
    _tolerates(path, typed.encode("utf-8", "surrogatepass"))


TOKENS = (
    st.sampled_from(list("[]{}=.,#\"'\\\n \ra1-"))
    | st.sampled_from(["[[", "]]", '"""', "'''", "servers", "x", "package", '"npm:x"', "env"])
    | st.sampled_from(["args", "runtime", "port", "true", "1979-05-27 07:32:00", "1e5", "nan"])
    | st.sampled_from(["0x1", '"secret"', "profiles", "\ufeff"])
)


@SHARED
@given(text=st.lists(TOKENS, max_size=40).map("".join))
def test_whatever_toml_is_made_of_only_manifest_errors_leave(path, text):
    _tolerates(path, text.encode())


STATEMENTS = st.sampled_from(
    """"port" = 1
x.y = [ {a = 1}, [2], '''3''' ]
[servers]
[servers.a]
package = "npm:x"
[[servers.b]]
[servers.b.c]
env = {A = {env = 'x'}}
[runtime]
[profiles.'x']
servers.c.args = [1]
args = [ # first""".splitlines(keepends=True)
) | st.just("args = [\n # x\n 'a',\n]\n")


@SHARED
@given(text=st.lists(STATEMENTS, max_size=8).map("".join))
def test_whatever_statements_follow_each_other_only_manifest_errors_leave(path, text):
    _tolerates(path, text.encode())


def test_however_deep_a_file_is_nested_only_manifest_errors_leave(path):
    for depth in range(20, 1000, 20):
        _tolerates(path, b"[servers.x]\nargs = " + b"[" * depth + b"]" * depth)
        _tolerates(path, b"[servers.x]\nenv = " + b"{a=" * depth + b"1" + b"}" * depth)


BASE = '[servers.x]\npackage = "npm:x"\n'


def test_only_what_determines_pins_changes_the_servers_hash(path):
    before, _ = hashes(path, BASE)
    same = ['version = "*"\n', "constraints = []\n", 'args = ["a"]\n', 'env = { A = "b" }\n']
    for line in (*same, "auto_start = true\n", "enabled = false\n", "node_flags = []\n"):
        assert hashes(path, BASE + line)[0] == before
    for line in ('version = "1"\n', 'constraints = ["mcp<2"]\n', 'bin = "x"\n'):
        assert hashes(path, BASE + line)[0] != before
    assert hashes(path, "[runtime]\nport = 1\n" + BASE)[0] == before
    assert hashes(path, BASE.replace("x]", "y]"))[0] != before
    assert before.startswith("sha256:")


def test_all_that_servers_say_changes_the_trust_hash(path):
    _, before = hashes(path, BASE)
    lines = ['version = "1"\n', 'args = ["a"]\n', 'env = { A = { env = "B" } }\n', "cwd = '/'\n"]
    for line in (*lines, 'pass_env = ["A"]\n', "auto_start = true\n", "node_flags = []\n"):
        assert hashes(path, BASE + line)[1] != before
    assert hashes(path, '[runtime]\ntoken = { file = "x" }\n' + BASE)[1] != before
    assert hashes(path, "# comment\n\n[runtime]\nport = 1\n" + BASE)[1] == before


def test_adding_to_a_missing_file_creates_one_that_can_be_read(path):
    add_server(path, "x", {"package": "npm:x", "version": "^1"})
    assert path.read_text(encoding="utf-8") == (
        "# What Octave installs and runs. Edit it freely: comments and layout are kept.\n"
        '\n[servers.x]\npackage = "npm:x"\nversion = "^1"\n'
    )
    assert load(path).servers == {"x": ServerEntry("x", package="npm:x", version="^1")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_references_are_written_as_they_are_read(path):
    env: Mapping[str, Value] = {"A": Reference("secret", "x/A"), "B": "plain"}
    args = ("--key", Reference("file", "key"))
    add_server(path, "x", {"package": "npm:x", "env": env, "args": args})
    assert load(path).servers["x"] == ServerEntry("x", package="npm:x", env=env, args=args)


def test_adding_keeps_every_other_byte_and_the_mode(path):
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())
    path.chmod(0o640)
    add_server(path, "new", {"package": "pypi:new"})
    added = b'\n[servers.new]\npackage = "pypi:new"\n'
    assert path.read_bytes() == b"\xef\xbb\xbf" + WHOLE.encode() + added
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert remove_server(path, "new")
    assert path.read_bytes() == b"\xef\xbb\xbf" + WHOLE.encode()


def test_adding_to_a_server_replaces_the_given_keys_only(path):
    path.write_text(WHOLE, encoding="utf-8")
    add_server(path, "github", {"version": "1.2.3"})
    expected = WHOLE.replace('version = "*"', 'version = "1.2.3"')
    assert path.read_text(encoding="utf-8") == expected


def test_an_entry_that_would_be_wrong_is_not_written(path):
    path.write_text(BASE, encoding="utf-8")
    with pytest.raises(ManifestError, match="needs exactly one of"):
        add_server(path, "x", {"url": "https://x"})
    with pytest.raises(ManifestError, match="unknown key"):
        add_server(path, "y", {"package": "npm:y", "nonsense": True})
    assert path.read_text(encoding="utf-8") == BASE


def test_a_manifest_that_is_wrong_is_not_edited(path):
    path.write_text("x = \n", encoding="utf-8")
    for edit in (lambda: add_server(path, "x", {}), lambda: remove_server(path, "x")):
        with pytest.raises(ManifestError, match="line 1, column 5"):
            edit()
    assert path.read_text(encoding="utf-8") == "x = \n"


def test_removing_a_server_keeps_the_comments_of_others(path):
    path.write_text(WHOLE, encoding="utf-8")
    assert remove_server(path, "github")
    assert list(load(path).servers) == ["notes", "linear"]
    start, end = WHOLE.index("[servers.github]"), WHOLE.index("[servers.notes]")
    assert path.read_text(encoding="utf-8") == WHOLE[:start] + WHOLE[end:]


def test_removing_what_is_not_there_changes_nothing(path):
    assert not remove_server(path, "x")
    assert not path.exists()
    path.write_text(BASE, encoding="utf-8")
    assert not remove_server(path, "y")
    assert path.read_text(encoding="utf-8") == BASE

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.errors import ManifestError, UsageError
from octave.packages import manifest
from octave.packages.assignments import read, require_no_secret, split
from octave.packages.manifest import SERVER_KEYS
from octave.packages.manifest_edit import change_server
from octave.packages.registry import Registry, bundled_folder

SECRET = {"secret": "x/T"}


VALUES: list[tuple[list[str], object]] = [
    (["auto_start=true"], True),
    (["replay=false"], False),
    (["version=1"], "1"),
    (["version=<2,>=1"], "<2,>=1"),
    (["cwd=true"], "true"),
    (["cwd=[x]"], "[x]"),
    (["idle_timeout=never"], "never"),
    (["memory_limit=512MB"], "512MB"),
    (["instance=session"], "session"),
    (["url=https://x/?a=b"], "https://x/?a=b"),
    (["args=--x"], ["--x"]),
    (["args="], [""]),
    (["args=[]"], []),
    (['args=["a b", "c"]'], ["a b", "c"]),
    (["args=a", "args=[b]"], ["a", "[b]"]),
    (["args=a,b"], ["a,b"]),
    (['args={ secret = "x/T" }'], [SECRET]),
    (["args=--dsn", 'args={ secret = "x/T" }'], ["--dsn", SECRET]),
    (["env.A="], ""),
    (["env.A=a=b"], "a=b"),
    (["env.A=true"], "true"),
    (["env.A=[1]"], "[1]"),
    (['env.A={"json": 1}'], '{"json": 1}'),
    (["env.A={}"], "{}"),
    (['env.A={ secret = "x/T" }'], SECRET),
    (['env={ A = "1" }'], {"A": "1"}),
    (["headers.X-Team=a"], "a"),
    (["tools.deny=delete_*"], ["delete_*"]),
    (["tools.allow=a", "tools.allow=b"], ["a", "b"]),
    (["pass_env=SSH_AUTH_SOCK"], ["SSH_AUTH_SOCK"]),
    (["constraints=mcp<2"], ["mcp<2"]),
    (["node_flags=--max-old-space-size=64"], ["--max-old-space-size=64"]),
    (["command=node", "command=x.js"], ["node", "x.js"]),
    (["enabled=true"], True),
    (["pinned=true"], True),
]


@pytest.mark.parametrize(("words", "value"), VALUES)
def test_a_value_is_what_the_manifests_reader_takes_it_for(words: list[str], value: object) -> None:
    ((keys, found),) = read(words).items()
    assert keys == tuple(words[0].partition("=")[0].split("."))
    assert found == value
    assert type(found) is type(value)


def test_several_keys_are_read_at_once() -> None:
    assert read(["package=npm:x", "bin=y", "auto_restart=false"]) == {
        ("package",): "npm:x",
        ("bin",): "y",
        ("auto_restart",): False,
    }


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("auto_strt=1", "a server has no key `auto_strt`", "did you mean `auto_start`?"),
        ("ENV.X=1", "a server has no key `ENV.X`", "did you mean `env`?"),
        ("zzz=1", "a server has no key `zzz`", "known: package, version, "),
        ("=1", "a server has no key ``", "known: package"),
        ("args.x=1", "`args` is no table, so there is no `args.x`", "`args=VALUE`"),
        ("env.=1", "`env` is no table, so there is no `env.`", ""),
        ("auto_start", "`auto_start` is no assignment", "octave set NAME KEY=VALUE"),
        ("auto_start=yes", "`auto_start` must be true or false, not a string", ""),
        ("auto_start=1", "`auto_start` must be true or false, not a string", ""),
        ("idle_timeout=10x", '`idle_timeout`: "10x" is not a duration such as "30s"', ""),
        ("memory_limit=", '`memory_limit`: "" is not a size such as', ""),
        ("instance=own", '`instance` must be one of auto, shared, session, not "own"', ""),
        ("version=", "`version` must not be empty", ""),
        ("constraints=foo bar", '`constraints`: "foo bar" is not a limit such as "mcp<2"', ""),
        ("pass_env=A B", '`pass_env`: "A B" cannot be the name of an environment variable', ""),
        ("env.A B=1", '`env.A B`: "A B" cannot be the name of an environment variable', ""),
        ('env.A={ secrt = "x/T" }', "unknown key `env.A`; did you mean `secret`?", ""),
        ('env.A={ secret = "x" }', "`env.A` must have the form SERVER/VARIABLE", ""),
        ("headers.X=ü", "`headers.X` must be printable ASCII", ""),
        ("tools.dny=x", "unknown key `tools.dny`; did you mean `deny`?", ""),
        ("url=ftp://x", '`url`: "ftp://x" is not an address such as', ""),
        ("package=foo", '`package`: "foo" is not KIND:NAME, such as "npm:NAME"', ""),
    ],
)
def test_what_the_manifest_could_not_hold_is_told_with_what_it_could(
    word: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read([word])
    assert caught.value.message.startswith(message)
    assert str(caught.value.hint).startswith(hint)


def test_a_key_that_holds_one_value_does_not_take_two() -> None:
    with pytest.raises(UsageError, match="`enabled` must be true or false, not an array"):
        read(["enabled=true", "enabled=false"])


@pytest.mark.parametrize(
    "words",
    [
        ["env.API_TOKEN=hush"],
        ['env={ A = "1", API_TOKEN = "hush" }'],
        ["headers.Authorization=hush"],
    ],
)
def test_a_secret_in_clear_is_refused_and_not_repeated(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is a secret: `octave\.toml` and a command") as caught:
        require_no_secret("x", read(words), None)
    assert "hush" not in str(caught.value.as_json())
    assert str(caught.value.hint).startswith("octave secret set x ")


def test_a_reference_and_what_is_no_secret_pass() -> None:
    words = ['env.API_TOKEN={ env = "T" }', "env.MODE=1", "headers.X-Team=a", "args=hush"]
    require_no_secret("x", read(words), None)


def test_the_registry_says_what_is_a_secret() -> None:
    google = Registry(bundled_folder()).get("google-workspace").preferred()
    values = read(["env.GOOGLE_OAUTH_CLIENT_ID=hush"])
    require_no_secret("x", values, None)
    with pytest.raises(UsageError):
        require_no_secret("x", values, google)
    context7 = Registry(bundled_folder()).get("context7").preferred()
    require_no_secret("x", read(["args=--api-key", 'args={ secret = "x/T" }']), context7)
    with pytest.raises(UsageError) as caught:
        require_no_secret("x", read(["args=--api-key", "args=hush"]), context7)
    assert "then octave set x with args='{ secret = \"x/API_KEY\" }'" in str(caught.value.hint)
    assert "hush" not in str(caught.value.as_json())


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_whatever_is_assigned_only_usage_errors_leave(text: str) -> None:
    for key in (*SERVER_KEYS, "env.A", "tools.deny", text):
        try:
            found = read([f"{key}={text}"])
        except UsageError:
            continue
        if key == "env.A" and not text.startswith("{"):
            assert found == {("env", "A"): text}


SOURCE = """# first
[servers.x] # the x
command = ["cat"]   # reads

  # indented
  env = { A = "1" } # inline

[servers.y]
command = ["cat"]
[servers.y.env]
B = "2"  # b
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "octave.toml"
    found.write_text(SOURCE, encoding="utf-8")
    return found


def test_a_change_touches_its_keys_and_no_other_byte(path: Path) -> None:
    assert change_server(path, "x", {("auto_start",): True, ("env", "B"): SECRET})
    assert change_server(path, "y", {("env", "B"): "3", ("env", "C"): "4"})
    text = path.read_text(encoding="utf-8")
    assert text == (
        SOURCE.replace(
            '{ A = "1" } # inline\n',
            '{A = "1", B = {secret = "x/T"}} # inline\n  auto_start = true\n',
        ).replace('B = "2"  # b\n', 'B = "3"  # b\nC = "4"\n')
    )
    assert manifest.load(path).servers["x"].auto_start


def test_what_is_so_already_is_no_change(path: Path) -> None:
    before = path.stat()
    assert not change_server(path, "x", {("env", "A"): "1", ("command",): ["cat"]})
    assert not change_server(path, "x", {}, [("auto_start",), ("env", "Z"), ("tools", "deny")])
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_table_that_is_new_stands_with_the_server_and_can_be_dropped(path: Path) -> None:
    change_server(path, "x", {("tools", "deny"): ["d"], ("tools", "allow"): ["a"]})
    found = tomllib.loads(path.read_text(encoding="utf-8"))["servers"]["x"]
    assert found["tools"] == {"deny": ["d"], "allow": ["a"]}
    assert "[servers.x.tools]" not in path.read_text(encoding="utf-8")
    change_server(path, "x", {}, [("tools",)])
    assert path.read_text(encoding="utf-8") == SOURCE


def test_what_would_not_fit_together_is_not_written(path: Path) -> None:
    with pytest.raises(ManifestError, match="needs exactly one of package, command, url") as caught:
        change_server(path, "x", {("package",): "npm:x"})
    assert str(caught.value.details["problem"]).startswith("[servers.x] needs exactly one of")
    assert path.read_text(encoding="utf-8") == SOURCE


def test_a_byte_order_mark_and_windows_line_breaks_stay(path: Path) -> None:
    path.write_bytes("\ufeff".encode() + SOURCE.replace("\n", "\r\n").encode())
    change_server(path, "x", {("auto_start",): True})
    content = path.read_bytes()
    assert content.startswith("\ufeff#".encode())
    assert content.count(b"\n") == content.count(b"\r\n") == SOURCE.count("\n") + 1


def test_keys_are_split_at_the_first_dot() -> None:
    assert split("env.a.b") == ("env", "a.b")


def test_a_pin_goes_with_a_package(path: Path) -> None:
    path.write_text('[servers.x]\npackage = "npm:x"\npinned = true\n', encoding="utf-8")
    before = manifest.load(path)
    assert before.servers["x"].pinned
    change_server(path, "x", {("pinned",): False})
    assert manifest.load(path).servers_hash == before.servers_hash
    path.write_text('[servers.x]\ncommand = ["a"]\npinned = true\n', encoding="utf-8")
    with pytest.raises(ManifestError, match=r"`pinned` in \[servers\.x\] goes with package"):
        manifest.load(path)

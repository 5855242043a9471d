"""How npm is run, what its failures mean, and when downloads are left to it."""

import json
import os
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed, RegistryUnreachable, StorageFailed
from octave.home import Home
from octave.packages.commands import Output
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.npm_command import NeedsNpm, failure, registry_access
from tests.packages.scripted_npm import npm_that


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    home = Home(tmp_path / "home")
    home.prepare()
    return Bench(home, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ENOTFOUND", RegistryUnreachable),
        ("ECONNREFUSED", RegistryUnreachable),
        ("EAI_AGAIN", RegistryUnreachable),
        ("ETIMEDOUT", RegistryUnreachable),
        ("ENOTCACHED", RegistryUnreachable),
        ("E401", RegistryUnreachable),
        ("E503", RegistryUnreachable),
        ("SELF_SIGNED_CERT_IN_CHAIN", RegistryUnreachable),
        ("ENOSPC", StorageFailed),
        ("EROFS", StorageFailed),
        ("EINTEGRITY", IntegrityFailed),
        ("ERESOLVE", InstallFailed),
        ("ETARGET", InstallFailed),
    ],
)
def test_npms_codes_become_octaves_errors(code, kind):
    output = Output(("node", "npm"), 1, "", f"npm error code {code}\nnpm error what went wrong\n")
    error = failure(output, "`pkg`")
    assert type(error) is kind
    assert error.details["code"] == code


def test_a_page_in_the_place_of_the_registry_is_no_answer():
    text = "npm error invalid json response body at http://localhost:9/pkg reason: Unexpected token"
    error = failure(Output(("node", "npm"), 1, "", text), "`pkg`")
    assert type(error) is RegistryUnreachable
    assert "octave clean" in (error.hint or "")


def test_npms_wrong_hash_names_the_package_and_both_values():
    wanted, got = "sha512-" + "A" * 86 + "==", "sha512-" + "B" * 86 + "=="
    text = "npm error code EINTEGRITY\nnpm error checksum failed when using sha512: "
    text += f"wanted {wanted} but got {got}. (1 bytes)\n"
    error = failure(Output(("node", "npm"), 1, "", text), "`root`", {wanted: "`dep`"})
    assert isinstance(error, IntegrityFailed)
    assert error.message.startswith("the tarball of `dep` is not the locked one")
    assert error.details == {"expected": wanted, "got": got}


def settings(**changes: object) -> str:
    config: dict[str, object] = {"registry": "http://localhost:9/npm", "strict-ssl": True}
    return f"print(json.dumps({config | changes!r}))"


def test_a_plain_registry_is_used_with_its_certificates(tmp_path, bench):
    node = npm_that(tmp_path, settings(cafile="/ca.pem"))
    access = registry_access(node, bench, tmp_path, frozenset({"@s"}))
    assert access.url == "http://localhost:9/npm/"
    assert access.ca_files == (Path("/ca.pem"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"proxy": "http://p"},
        {"https-proxy": "http://p"},
        {"strict-ssl": False},
        {"ca": "-----BEGIN"},
        {"@s:registry": "http://localhost:8"},
    ],
)
def test_settings_that_only_npm_knows_are_left_to_npm(tmp_path, bench, changes):
    with pytest.raises(NeedsNpm):
        registry_access(npm_that(tmp_path, settings(**changes)), bench, tmp_path, frozenset({"@s"}))


@pytest.mark.parametrize(
    ("line", "needs_npm"),
    [
        ("//localhost:9/npm/:_authToken=x", True),
        ("//localhost:9/:_password=x", True),
        ("_auth = x", True),
        ("//elsewhere.example/:_authToken=x", False),
        ("save-exact=true", False),
    ],
)
def test_a_registry_that_wants_a_token_is_left_to_npm(tmp_path, bench, line, needs_npm):
    (tmp_path / "user").write_text(f"{line}\n", encoding="utf-8")
    node = npm_that(tmp_path, settings(userconfig=str(tmp_path / "user")))
    if needs_npm:
        with pytest.raises(NeedsNpm, match="authorization"):
            registry_access(node, bench, tmp_path, frozenset())
    else:
        registry_access(node, bench, tmp_path, frozenset())


def test_npm_runs_no_scripts_and_writes_into_octaves_cache_only(tmp_path, bench):
    record = tmp_path / "seen.json"
    script = f"open({str(record)!r}, 'w').write(json.dumps([flags, dict(os.environ)]))\n"
    other = Bench(bench.home, {**bench.environ, "NPM_CONFIG_CACHE": "/elsewhere"}, offline=True)
    node = npm_that(tmp_path, script + settings())
    registry_access(node, other, tmp_path, frozenset())
    flags, environ = json.loads(record.read_text(encoding="utf-8"))
    assert {"--ignore-scripts", "--allow-git=none", "--allow-file=none", "--offline"} <= set(flags)
    caches = {key: value for key, value in environ.items() if key.lower() == "npm_config_cache"}
    assert caches == {"npm_config_cache": str(bench.home.cache / "npm")}

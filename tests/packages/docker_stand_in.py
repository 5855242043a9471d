"""A program that speaks docker's and podman's words, for a machine that has neither.

Its "registry" and its "daemon" are a folder. A container is a process of its own session with an
environment of its own, which outlives a killed `run` as a real one does. Options, outputs and exit
codes are those of Docker 27 and podman 5 as far as they are spoken here; every other word is an
error, as there.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROGRAM = """#!{python} -IS
import json, os, re, signal, subprocess, sys, threading, time
STATE, PODMAN = {state!r}, {podman!r}
TOOL = "podman" if PODMAN else "docker"

def path(*parts):
    return os.path.join(STATE, *parts)

def load(name):
    try:
        with open(path(name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return {{}}

def save(name, value):
    with open(path(name + ".part%d" % os.getpid()), "w") as file:
        json.dump(value, file)
    os.replace(path(name + ".part%d" % os.getpid()), path(name))

def fail(text, code=1):
    sys.stderr.write(text + "\\n")
    sys.exit(code)

def split(reference):
    name, _, digest = reference.partition("@")
    bare, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        bare, tag = name, "latest"
    return bare, digest or tag

def local(reference):
    name, version = split(reference)
    for image in load("store").values():
        known = dict(image["tags"]).get(name + ":" + version)
        if known or name + "@" + version in image["digests"]:
            return image
    return None

def pull(reference):
    name, version = split(reference)
    trouble = load("trouble").get("pull")
    if trouble:
        fail(trouble, 125 if PODMAN else 1)
    registry = load("registry")
    if name not in registry:
        fail("Error response from daemon: pull access denied for %s, repository does not "
             "exist or may require 'docker login': denied: requested access to the resource is "
             "denied" % name)
    entry = registry[name]
    digest = version if version.startswith("sha256:") else entry["tags"].get(version)
    if digest not in entry["images"]:
        fail("Error response from daemon: manifest for %s not found: manifest unknown: manifest "
             "unknown" % reference)
    made = entry["images"][digest]
    store = load("store")
    image = store.setdefault(made["own"], {{"tags": [], "digests": [], **made}})
    for each in [digest] + ([made["own"]] if PODMAN else []):
        if name + "@" + each not in image["digests"]:
            image["digests"].append(name + "@" + each)
    if version != digest:
        for other in store.values():
            other["tags"] = [pair for pair in other["tags"] if pair[0] != name + ":" + version]
        image["tags"].append([name + ":" + version, True])
    save("store", store)
    if PODMAN:
        sys.stderr.write("Trying to pull %s...\\nWriting manifest to image\\n" % reference)
        print(made["own"].partition(":")[2])
    else:
        print("%s: Pulling from %s" % (version, name.partition("/")[2]))
        print("Digest: " + digest)
        print("Status: Downloaded newer image for " + reference)
        print(reference)

def inspect(reference):
    image = local(reference)
    if image is None:
        print("[]")
        fail("Error response from daemon: No such image: " + reference, 125 if PODMAN else 1)
    found = {{"Id": image["own"], "RepoDigests": image["digests"], "Os": "linux",
             "Config": {{"Labels": image["labels"]}}}}
    if PODMAN:
        found["Digest"] = image["digests"][-2].partition("@")[2]
    print(json.dumps([found]))

def run(words):
    flags, values = {{"-i", "--rm", "--init"}}, {{"-e", "--label", "--name", "--mount"}}
    given, at = {{}}, 0
    while words[at].startswith("-"):
        word = words[at]
        key, equals, value = word.partition("=")
        if word in flags:
            given[word] = True
        elif key in ("--pull", "--log-driver") and equals:
            given[key] = value
        elif word in values:
            at += 1
            given.setdefault(word, []).append(words[at])
        else:
            fail("unknown flag: " + word, 125)
        at += 1
    image = local(words[at])
    if given.get("--pull") != "never":
        fail("this one pulls nothing by itself", 125)
    if image is None:
        fail(TOOL + ": Error response from daemon: No such image: " + words[at], 125)
    environ = {{name: os.environ[name] for name in given.get("-e", []) if name in os.environ}}
    environ.update(PATH="/usr/bin:/bin", PYTHONDONTWRITEBYTECODE="1")
    child = subprocess.Popen(
        [{python!r}, image["program"], *words[at + 1:]], env=environ, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    (name,) = given["--name"]
    with open(path("containers", name), "w") as file:
        json.dump({{"pid": child.pid, "words": words}}, file)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    def pump(source, target, close):
        while chunk := os.read(source, 65536):
            while chunk:
                try:
                    chunk = chunk[os.write(target, chunk):]
                except OSError:
                    return
        if close:
            child.stdin.close()
    threading.Thread(target=pump, args=(0, child.stdin.fileno(), True), daemon=True).start()
    pumps = [threading.Thread(target=pump, args=(pipe.fileno(), to, False))
             for pipe, to in ((child.stdout, 1), (child.stderr, 2))]
    for each in pumps:
        each.start()
    code = child.wait()
    for each in pumps:
        each.join()
    try:
        os.unlink(path("containers", name))
    except FileNotFoundError:
        pass
    os._exit(code if code >= 0 else 128 - code)

def remove(name):
    try:
        with open(path("containers", name)) as file:
            os.killpg(json.load(file)["pid"], signal.SIGKILL)
        os.unlink(path("containers", name))
    except (FileNotFoundError, ProcessLookupError):
        fail("Error response from daemon: No such container: " + name)
    print(name)

words = sys.argv[1:]
with open(path("log"), "a") as file:
    file.write(json.dumps({{"words": words, "environ": sorted(os.environ)}}) + "\\n")
down = load("trouble").get("down")
if words == ["--version"]:
    print("podman version 5.2.2" if PODMAN else "Docker version 27.3.1, build ce12230")
elif down:
    fail(down, 125 if PODMAN else 1)
elif words == (["info", "--format", "{{{{.Version.Version}}}}"] if PODMAN
               else ["version", "--format", "{{{{.Server.Version}}}}"]):
    print("5.2.2" if PODMAN else "27.3.1")
elif words[0] == "pull" and len(words) == 2:
    pull(words[1])
elif words[:2] == ["image", "inspect"] and len(words) == 3:
    inspect(words[2])
elif words[0] == "run":
    run(words[1:])
elif words[:3] == ["rm", "--force", "--volumes"] and len(words) == 4:
    remove(words[3])
else:
    fail("%s: '%s' is not a %s command." % (TOOL, words[0], TOOL), 125)
"""


@dataclass(frozen=True)
class Asked:
    """One command that was given."""

    words: Sequence[str]
    environ: Sequence[str]
    """Names."""


class DockerStandIn:
    """An executable in `root/bin`, and what its registry and store hold."""

    def __init__(self, root: Path, tool: str = "docker") -> None:
        self.folder = root / "bin"
        self.path = self.folder / tool
        self.state = root / f"{tool}-state"
        (self.state / "containers").mkdir(parents=True)
        self.folder.mkdir(exist_ok=True)
        program = _PROGRAM.format(
            python=sys.executable, state=str(self.state), podman=tool == "podman"
        )
        self.path.write_text(program, encoding="utf-8")
        self.path.chmod(0o755)

    def publish(
        self, name: str, tag: str, program: Path, labels: Mapping[str, str] | None = None
    ) -> str:
        """Put an image into its registry, or move a tag to one; return the digest of its index."""
        registry = self._read("registry")
        entry = registry.setdefault(name, {"tags": {}, "images": {}})
        number = len(entry["images"]) + 1
        index, own = (f"sha256:{kind}{number:063x}" for kind in ("a", "b"))
        entry["images"][index] = {"own": own, "program": str(program), "labels": labels}
        entry["tags"][tag] = index
        self._write("registry", registry)
        return index

    def trouble(self, **said: str) -> None:
        """Let it fail from now on: `down` whatever is asked, `pull` a pull."""
        self._write("trouble", said)

    def forget(self) -> None:
        """Empty its store, as `image prune` does."""
        self._write("store", {})

    def alias(self, name: str, digest: str) -> None:
        """Let its images be known by one more digest, as after a pull of another index."""
        store = self._read("store")
        for image in store.values():
            image["digests"].append(f"{name}@{digest}")
        self._write("store", store)

    def asked(self, verb: str) -> list[Asked]:
        lines = (self.state / "log").read_text(encoding="utf-8").splitlines()
        found = [Asked(**json.loads(line)) for line in lines]
        return [each for each in found if each.words[0] == verb]

    def containers(self) -> dict[str, int]:
        """Return the containers it has by name, and the process of each."""
        return {
            path.name: json.loads(path.read_bytes())["pid"]
            for path in (self.state / "containers").iterdir()
        }

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.state / name).read_bytes())
        except FileNotFoundError:
            return {}

    def _write(self, name: str, value: Any) -> None:
        (self.state / name).write_text(json.dumps(value), encoding="utf-8")

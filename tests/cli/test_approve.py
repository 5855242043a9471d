"""`octave approve`: a tool whose definition changes is reported or blocked until it is approved."""

import os
import pty

import pytest

from tests.cli.desk import Desk, has_hidden, read_until


@pytest.fixture
def changing(desk: Desk) -> Desk:
    desk.server("changing-tools")
    return desk


def set_mode(desk: Desk, mode: str) -> None:
    path = desk.home / "octave.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(f'runtime.definitions = "{mode}"\n{text}', encoding="utf-8")


def add(desk: Desk, *words: str) -> tuple[int, str]:
    done = desk.octave("call", "changing-tools", "add", "a:=1", "b:=2", *words)
    return done.code, done.stderr


def wait_for(desk: Desk, text: str) -> None:
    """Until the log of the server holds it; the runtime looks a moment after list_changed."""
    path = desk.home / "logs" / "changing-tools.log"
    desk.until(lambda: path.exists() and text in desk.log("changing-tools"))


def test_a_change_is_told_once_and_marked_until_it_is_approved(changing: Desk) -> None:
    changing.octave("serve", "--detach")
    changing.octave("start", "changing-tools")

    assert add(changing) == (0, "")
    wait_for(changing, "not as they were approved")
    assert add(changing) == (0, "")
    marked = changing.octave("tools", "changing-tools")
    status = changing.octave("status")
    logs = changing.octave("logs", "changing-tools").stdout
    refused = changing.octave("approve", "changing-tools")
    approved = changing.octave("approve", "changing-tools", "-y")
    again = changing.octave("approve", "changing-tools", "-y")
    after = changing.octave("tools", "changing-tools", "--json")

    assert "    changed since it was approved: `octave approve changing-tools`\n" in marked.stdout
    assert "    not approved yet: `octave approve changing-tools`\n" in marked.stdout
    assert "warning: 2 tool definitions of `changing-tools` not approved" in status.stderr
    assert logs.count("are not as they were approved") == 1
    assert (refused.code, refused.stdout) == (2, "")
    assert "octave approve changing-tools -y" in refused.stderr
    assert (approved.code, approved.stdout) == (0, "approved changing-tools (2 tools)\n")
    assert '-  description: "Add two numbers"\n' in approved.stderr
    assert "warning: `description` of `add` holds a place where secrets" in approved.stderr
    assert (again.code, again.stdout) == (0, "")
    assert again.stderr == "nothing of `changing-tools` waits for approval\n"
    assert not any("_approval" in tool for tool in after.json)


def test_a_changed_tool_is_blocked_across_restarts_until_it_is_approved(changing: Desk) -> None:
    set_mode(changing, "block")

    never = add(changing)
    first = changing.octave("approve", "changing-tools", "-y", "--json")
    before = add(changing)
    blocked = changing.octave("call", "changing-tools", "add", "a:=1", "--json")
    some = changing.octave("approve", "changing-tools", "add", "-y", "--json")
    half = add(changing)
    extra = changing.octave("call", "changing-tools", "extra")

    assert never[0] == 7
    assert [(each["tool"], each["finding"]) for each in first.json["approved"]] == [("add", "new")]
    assert before == (0, "")
    assert (blocked.code, blocked.stdout) == (7, "")
    assert blocked.error["code"] == "not_approved"
    assert blocked.error["hint"] == "octave approve changing-tools"
    assert '-  description: "Add two numbers"' in blocked.error["details"]["diff"]
    assert [(each["tool"], each["finding"]) for each in some.json["approved"]] == [
        ("add", "changed")
    ]
    assert some.json["approved"][0]["textKnown"]
    assert half == (0, "")
    assert extra.code == 7
    assert "tool `extra` of `changing-tools` is not approved yet" in extra.stderr


def test_a_refusal_leaves_everything_as_it_was(changing: Desk) -> None:
    set_mode(changing, "block")
    changing.octave("approve", "changing-tools", "-y")
    add(changing)
    assert add(changing)[0] == 7
    kept = changing.home / "catalogue" / "changing-tools.approved.json"
    before = kept.read_bytes()

    primary, secondary = pty.openpty()
    child = changing.start("approve", "changing-tools", "--json", stdin=secondary, stderr=secondary)
    os.close(secondary)
    shown = read_until(primary, b"[y/N]")
    os.write(primary, b"n\n")
    code = child.wait(30)
    os.close(primary)

    assert b"add: another definition than was approved" in shown
    assert b"Approve 2 definitions?" in shown
    assert b"not approved yet" in shown, "nobody is asked about what was not shown"
    assert code == 7
    assert kept.read_bytes() == before
    assert add(changing)[0] == 7


def test_where_it_is_allowed_nothing_is_said(changing: Desk) -> None:
    set_mode(changing, "allow")
    changing.octave("serve", "--detach")
    changing.octave("start", "changing-tools")
    add(changing)
    assert add(changing) == (0, "")
    assert "extra" in changing.octave("tools", "changing-tools").stdout
    assert "approve" not in changing.octave("logs", "changing-tools").stdout


def test_an_unknown_tool_or_server_is_exit_4(changing: Desk) -> None:
    tool = changing.octave("approve", "changing-tools", "sub", "-y")
    server = changing.octave("approve", "changing-tool", "-y")
    assert (tool.code, server.code) == (4, 4)
    assert "hint: did you mean `changing-tools`?" in server.stderr


def test_what_a_server_says_of_itself_reaches_no_terminal_unfiltered(desk: Desk) -> None:
    desk.server("ansi-description")
    done = desk.octave("approve", "ansi-description", "-y")
    assert done.code == 0
    assert not has_hidden(done.stderr)
    assert not has_hidden(done.stdout)

"""`octave tools` and `octave logs` tell which tools AI tools are not shown, and why."""

from tests.cli.desk import Desk, has_hidden

REASON = "`inputSchema` is null, not an object"
WARNING = f"warning: tool `null_schema` is not shown to AI tools: {REASON}"


def test_row_51_a_tool_that_is_hidden_is_marked_with_the_reason(desk: Desk) -> None:
    desk.server("weird-schemas")
    desk.octave("serve", "--detach")
    desk.octave("start", "weird-schemas")

    shown = desk.octave("tools", "weird-schemas")
    document = desk.octave("tools", "weird-schemas", "--json")
    logs = desk.octave("logs", "weird-schemas")
    called = desk.octave("call", "weird-schemas", "good_last")
    desk.octave("shutdown")
    asleep = desk.octave("tools", "weird-schemas", "--json")

    assert f"null_schema()\n    not shown to AI tools: {REASON}\n" in shown.stdout
    assert "good_last()\ngood" not in shown.stdout
    assert not has_hidden(shown.stdout)
    assert (called.code, called.stdout) == (0, "good_last\n")
    assert WARNING in logs.stdout
    tools = {tool.get("name"): tool for tool in document.json}
    assert tools["null_schema"] == {
        "server": "weird-schemas",
        "qualifiedName": "weird-schemas__null_schema",
        "_problem": REASON,
        "name": "null_schema",
        "inputSchema": None,
    }
    assert set(tools["too_many_digits"]) == {"server", "qualifiedName", "_problem", "name"}
    assert not any("_problem" in tool for name, tool in tools.items() if str(name)[:4] == "good")
    # What holds a lone surrogate cannot be kept on disk.
    assert asleep.json == [each for each in document.json if each.get("name") != "type_below"]


def test_row_50_a_list_without_end_is_told_in_the_log(desk: Desk) -> None:
    desk.server("endless-pages")
    desk.octave("serve", "--detach")
    desk.octave("start", "endless-pages")

    tools = desk.octave("tools", "endless-pages", "--json")
    logs = desk.octave("logs", "endless-pages")

    assert len(tools.json) == 100
    assert "warning: `tools/list` has more than 100 pages; what follows is left out" in logs.stdout

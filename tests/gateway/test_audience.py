"""Each session hears what concerns it, once its conversation is open."""

from octave.gateway.audience import Audience, Member, Scope
from octave.runtime import wire

ALL = Scope(None)
ONLY_A = Scope(("a",), single=True)


def heard(audience: Audience, scope: Scope) -> tuple[Member, list[bytes]]:
    lines: list[bytes] = []
    member = Member(scope, lines.append, listening=True)
    audience.join(member)
    return member, lines


def said(method: str, params: bytes | None = None) -> wire.Message:
    return wire.decode(wire.notification(method, params))


def test_changed_lists_are_told_to_the_faces_that_show_the_server() -> None:
    audience = Audience()
    _, everything = heard(audience, ALL)
    _, single = heard(audience, ONLY_A)
    audience.lists_changed("b", {"tools", "resourceTemplates"})
    assert everything == [
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}',
    ]
    assert single == []


def test_servers_that_come_or_go_are_told_to_aggregated_faces() -> None:
    audience = Audience()
    _, everything = heard(audience, ALL)
    _, single = heard(audience, ONLY_A)
    audience.servers_changed()
    assert len(everything) == 3
    assert single == []


def test_session_that_was_not_opened_hears_nothing() -> None:
    audience = Audience()
    member, lines = heard(audience, ALL)
    member.listening = False
    audience.lists_changed("a", {"tools"})
    assert lines == []


def test_updated_resource_is_told_to_its_subscribers_alone() -> None:
    audience = Audience()
    subscriber, lines = heard(audience, ALL)
    _, others = heard(audience, ONLY_A)
    subscriber.subscriptions.add(("a", "x://1"))
    audience.heard("a", said("notifications/resources/updated", b'{"uri":"x:\\/\\/1"}'))
    audience.heard("b", said("notifications/resources/updated", b'{"uri":"x://1"}'))
    audience.heard("a", said("notifications/resources/updated", b'{"uri":"x://2"}'))
    assert lines == [
        b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x:\\/\\/1"}}'
    ]
    assert others == []


def test_log_below_the_level_asked_for_stays_away_from_an_aggregated_face() -> None:
    audience = Audience()
    member, lines = heard(audience, ALL)
    _, single = heard(audience, ONLY_A)
    member.level = "warning"
    for level in (b"info", b"warning", b"emergency", b"own"):
        audience.heard("a", said("notifications/message", b'{"level":"%b"}' % level))
    assert len(lines) == 3
    assert len(single) == 4


def test_unknown_notification_reaches_the_face_of_its_server_alone() -> None:
    audience = Audience()
    _, everything = heard(audience, ALL)
    _, single = heard(audience, ONLY_A)
    audience.heard("a", said("notifications/own", b'{"n":1.10}'))
    audience.heard("b", said("notifications/own"))
    assert single == [b'{"jsonrpc":"2.0","method":"notifications/own","params":{"n":1.10}}']
    assert everything == []


def test_late_progress_reaches_nobody() -> None:
    audience = Audience()
    _, single = heard(audience, ONLY_A)
    audience.heard("a", said("notifications/progress", b'{"progressToken":7,"progress":1}'))
    assert single == []


def test_session_that_leaves_while_it_is_told_does_not_stop_the_others() -> None:
    audience = Audience()
    first = Member(ALL, lambda _line: audience.leave(first), listening=True)
    audience.join(first)
    _, lines = heard(audience, ALL)
    audience.lists_changed("a", {"tools"})
    audience.lists_changed("a", {"tools"})
    assert len(lines) == 2

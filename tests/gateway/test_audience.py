"""Each session hears what concerns it, and each subscription what it asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from octave.gateway.audience import Audience, Listen, Member, Scope, is_at_least
from octave.runtime import wire
from octave.runtime.handshake import Era
from octave.runtime.questions import Caller
from octave.runtime.subject import Role, Speaker

ALL = Scope(None)
ONLY_A = Scope(("a",), single=True)


@dataclass(slots=True)
class Ear:
    lines: list[bytes] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None

    def changed(self, line: bytes) -> None:
        self.lines.append(line)
        self.on_change()

    def heard(self, speaker: Speaker, message: wire.Message) -> None:
        self.lines.append(message.line)

    def updated(self, line: bytes) -> None:
        self.lines.append(line)


@dataclass(frozen=True, slots=True)
class Said:
    """What the audience looks at of an instance."""

    name: str
    era: Era = "legacy"
    role: Role = Role()  # noqa: RUF009 - frozen
    is_retired: bool = False


def speaker(name: str, era: Era = "legacy", owner: Caller | None = None) -> Speaker:
    return Said(name, era, Role(owner=owner))


def joined(audience: Audience, scope: Scope) -> tuple[Member, list[bytes]]:
    ear = Ear()
    member = Member(scope, ear, session=ear)
    audience.join(member)
    return member, ear.lines


def listening(
    audience: Audience, scope: Scope, *methods: str, resources: frozenset[tuple[str, str]]
) -> list[bytes]:
    lines: list[bytes] = []
    audience.listen(Listen(scope, b'"sub"', frozenset(methods), resources, lines.append))
    return lines


def said(method: str, params: bytes | None = None) -> wire.Message:
    return wire.decode(wire.notification(method, params))


def test_changed_lists_are_told_to_the_faces_that_show_the_server() -> None:
    audience = Audience()
    _, everything = joined(audience, ALL)
    _, single = joined(audience, ONLY_A)
    audience.lists_changed("b", {"tools", "resourceTemplates"})
    assert everything == [
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}',
    ]
    assert single == []


def test_servers_that_come_or_go_are_told_to_the_faces_that_show_them() -> None:
    audience = Audience()
    _, everything = joined(audience, ALL)
    _, single = joined(audience, ONLY_A)
    _, several = joined(audience, Scope(("b", "c")))
    audience.reloaded({"added": ["a"], "removed": [], "changed": []}, {})
    assert (len(everything), len(single), len(several)) == (3, 3, 0)
    audience.reloaded({"added": [], "removed": [], "changed": ["c"]}, {})
    assert (len(everything), len(single), len(several)) == (6, 3, 3)
    audience.reloaded({"added": [], "removed": [], "changed": []}, {})
    assert (len(everything), len(single), len(several)) == (6, 3, 3)


NOTHING: Mapping[str, list[str]] = {"added": [], "removed": [], "changed": []}


def test_profile_that_changed_is_another_choice_for_those_who_have_it_open() -> None:
    audience = Audience()
    work, home = Scope.of("work", ["a"], ["x"]), Scope.of("home", ["a"])
    _, at_work = joined(audience, work)
    _, at_home = joined(audience, home)
    audience.reloaded(NOTHING, {"work": ("b", "x", "a"), "home": ("a",)})
    assert work.servers == ("b", "x", "a")
    assert (len(at_work), at_home) == (3, [])
    audience.lists_changed("b", {"prompts"})
    assert (len(at_work), at_home) == (4, [])
    assert work == Scope.of("work", ["b", "x", "a"], ["x"])


def test_subscriptions_end_with_the_profile_or_the_server_that_they_are_of() -> None:
    audience = Audience()
    nothing = frozenset[tuple[str, str]]()
    gone, kept, single, everything = (
        Listen(scope, b"1", frozenset(), nothing, lambda _: None)
        for scope in (Scope.of("gone", ["a"]), Scope.of("kept", ["a"]), ONLY_A, ALL)
    )
    for listen in (gone, kept, single, everything):
        audience.listen(listen)
    audience.reloaded(NOTHING, {"kept": ()})
    assert [each.ended.is_set() for each in (gone, kept, single, everything)] == [
        True,
        False,
        False,
        False,
    ]
    audience.reloaded({**NOTHING, "removed": ["a"]}, {"kept": ()})
    assert [each.ended.is_set() for each in (kept, single, everything)] == [False, True, False]


def test_server_that_left_a_profile_is_not_heard_there_any_more() -> None:
    audience = Audience()
    scope = Scope.of("work", ["a"])
    member, lines = joined(audience, scope)
    member.subscriptions.add(("a", "x://1"))
    heard = listening(audience, scope, resources=frozenset({("a", "x://1")}))
    audience.reloaded(NOTHING, {"work": ()})
    before = len(lines)
    audience.heard(speaker("a"), said("notifications/resources/updated", b'{"uri":"x://1"}'))
    audience.heard(speaker("a"), said("notifications/own"))
    assert len(lines) == before
    assert heard == []


def test_a_subscription_hears_only_what_it_asked_for_and_under_its_own_id() -> None:
    audience = Audience()
    tools, none = "notifications/tools/list_changed", frozenset[tuple[str, str]]()
    lines = listening(audience, ALL, tools, resources=frozenset({("a", "x://1")}))
    others = listening(audience, ONLY_A, "notifications/prompts/list_changed", resources=none)
    audience.lists_changed("a", {"tools"})
    tag = b'"_meta":{"io.modelcontextprotocol/subscriptionId":"theirs"},'
    update = b'{%b"uri":"x://1","own":1.10}' % tag
    audience.heard(speaker("a", "modern"), said("notifications/resources/updated", update))
    audience.heard(speaker("b"), said("notifications/resources/updated", b'{"uri":"x://1"}'))
    meta = b'"_meta":{"io.modelcontextprotocol/subscriptionId":"sub"}'
    assert lines == [
        b'{"jsonrpc":"2.0","method":"%b","params":{%b}}' % (tools.encode(), meta),
        b'{"jsonrpc":"2.0","method":"notifications/resources/updated",'
        b'"params":{%b,"uri":"x://1","own":1.10}}' % meta,
    ]
    assert others == []


def test_updated_resource_is_told_to_its_subscribers_alone() -> None:
    audience = Audience()
    subscriber, lines = joined(audience, ALL)
    _, others = joined(audience, ONLY_A)
    subscriber.subscriptions.add(("a", "x://1"))
    a, b = speaker("a"), speaker("b")
    audience.heard(a, said("notifications/resources/updated", b'{"uri":"x:\\/\\/1"}'))
    audience.heard(b, said("notifications/resources/updated", b'{"uri":"x://1"}'))
    audience.heard(a, said("notifications/resources/updated", b'{"uri":"x://2"}'))
    assert lines == [
        b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x:\\/\\/1"}}'
    ]
    assert others == []


def test_the_process_of_one_session_is_heard_by_that_one_alone() -> None:
    audience = Audience()
    owner, own = joined(audience, ALL)
    _, others = joined(audience, ALL)
    audience.heard(speaker("a", owner=Caller(owner.session)), said("notifications/own"))
    assert own == [b'{"jsonrpc":"2.0","method":"notifications/own"}']
    assert others == []


def test_late_progress_reaches_nobody() -> None:
    audience = Audience()
    _, single = joined(audience, ONLY_A)
    progress = said("notifications/progress", b'{"progressToken":7,"progress":1}')
    audience.heard(speaker("a"), progress)
    assert single == []


def test_session_that_leaves_while_it_is_told_does_not_stop_the_others() -> None:
    audience = Audience()
    ear = Ear(on_change=lambda: audience.leave(first))
    first = Member(ALL, ear, session=ear)
    audience.join(first)
    _, lines = joined(audience, ALL)
    audience.lists_changed("a", {"tools"})
    audience.lists_changed("a", {"tools"})
    assert len(ear.lines) == 1
    assert len(lines) == 2


def test_the_most_verbose_level_of_those_who_see_a_server_counts() -> None:
    audience = Audience()
    one, _ = joined(audience, ALL)
    other, _ = joined(audience, ONLY_A)
    assert audience.most_verbose("a") is None
    one.level, other.level = "error", "debug"
    assert audience.most_verbose("a") == "debug"
    assert audience.most_verbose("b") == "error"


def test_a_level_nobody_knows_is_severe_enough() -> None:
    assert [is_at_least(level, "warning") for level in ("info", "warning", "alert", "own")] == [
        False,
        True,
        True,
        True,
    ]

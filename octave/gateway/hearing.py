"""What a client wants to hear of by itself: log lines, updates of resources, changed lists.

Each session has its own wishes; a server that serves several is asked for the most that any of them
wants, and each hears no more than it asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
import msgspec

from octave.errors import OctaveError, ServerBusy, UsageError
from octave.gateway import bridge
from octave.gateway.audience import LEVELS, Listen, Member, is_at_least, level_named
from octave.gateway.client import Client, Send
from octave.gateway.crossing import Crossing
from octave.gateway.eras import SUBSCRIPTION_KEY, violated
from octave.gateway.face import FILTER, Face
from octave.gateway.listing import text_of
from octave.gateway.request import Request
from octave.gateway.router import Route, Router
from octave.runtime import wire
from octave.runtime.instance import Instance
from octave.runtime.interests import ACKNOWLEDGED
from octave.runtime.server import Server
from octave.runtime.subject import Speaker

DEFAULT_LEVEL = "info"
"""For a client that never said, once another one wants more of the same server."""
SUBSCRIPTIONS_LIMIT = 1024
"""Resources that one session, or one subscription, may want to hear of."""


@dataclass(slots=True, eq=False)
class Wish:
    """One resource that the client wants to hear of, and the process that tells of it."""

    instance: Instance
    uri: str

    def move(self, instance: Instance) -> None:
        """Have another process tell of it, which is not up yet."""
        self.drop()
        self.instance = instance
        instance.interests.add(self.uri)

    def drop(self, *, is_told: bool = False) -> None:
        """Want it no more; as `Interests.drop`."""
        self.instance.interests.drop(self.uri, is_told=is_told)


class Hearing:
    """The wishes of one session's client.

    Args:
        member: what the audience knows of them.
        say: gives a line to a `send` of the client.
    """

    def __init__(
        self,
        router: Router,
        face: Face,
        crossing: Crossing,
        client: Client,
        member: Member,
        say: Callable[[Callable[[bytes], None], bytes], None],
    ) -> None:
        self._router = router
        self._face = face
        self._crossing = crossing
        self._client = client
        self._member = member
        self._say = say
        self._subscribed: dict[tuple[str, str], Wish] = {}
        """By server and URI."""
        self._listened_to: set[Wish] = set()

    def close(self) -> None:
        """Want nothing any more."""
        while self._subscribed:
            self._subscribed.popitem()[1].drop()
        self._member.subscriptions.clear()

    def _moved(self, instance: Instance) -> None:
        """Take a process of the session's own: what the one before told of is up to that now."""
        for wish in (*self._subscribed.values(), *self._listened_to):
            before = wish.instance
            is_left = before.role.owner is None or before.is_retired
            if before.name == instance.name and is_left and before is not instance:
                wish.move(instance)

    def places(
        self, here: Sequence[Request], speaker: Speaker, message: wire.Message
    ) -> Sequence[Send | None]:
        """Return where what a server said of itself is said to the client, each place once.

        None stands for the place of what belongs to no request; `here` are the open requests that
        the process has.
        """
        if message.method == "notifications/message":
            return self._places_of_log(here, speaker, text_of(message.params, "level") or "")
        is_of_listen = speaker.era == "modern" and bridge.is_tagged(message)
        era = self._client.era
        if era is None or (is_of_listen and era == "modern"):
            # What is told under a subscription is told under those of the client.
            return ()
        if not self._is_its_own(speaker, message):
            return ()
        # Over HTTP what is said during a call belongs on the stream of that call.
        return (here[-1].send if here else None,)

    def _places_of_log(
        self, here: Sequence[Request], speaker: Speaker, level: str
    ) -> Sequence[Send | None]:
        found: dict[Send | None, None] = {
            each.send: None for each in here if self._asked_for(each, speaker, level)
        }
        is_told = speaker.era == "legacy" and self._client.is_listening
        if is_told and self._is_served_by(speaker) and is_at_least(level, self._least(speaker)):
            asked = [each.send for each in here if each.envelope is None]
            found[asked[-1] if asked else None] = None
        return tuple(found)

    def _asked_for(self, request: Request, speaker: Speaker, level: str) -> bool:
        """Whether log lines of that level belong to the request: in the modern era all do."""
        least = self._client.level if speaker.era == "modern" else None
        if request.envelope is not None:
            least = request.envelope.log_level
        return least in LEVELS and is_at_least(level, least)

    def _least(self, speaker: Speaker) -> str:
        if self._client.level is not None:
            return self._client.level
        wanted = self._router.audience.most_verbose(speaker.name)
        return LEVELS[0] if wanted is None else DEFAULT_LEVEL

    def _is_served_by(self, speaker: Speaker) -> bool:
        return speaker.role.owner is not None or self._crossing.is_served_by(speaker)

    def _is_its_own(self, speaker: Speaker, message: wire.Message) -> bool:
        """Whether that is for the client, as far as one can know of what is no log line."""
        if message.method == "notifications/elicitation/complete":
            sent_to = self._client.was_sent_to(text_of(message.params, "elicitationId"))
            if sent_to and self._is_served_by(speaker):
                return True
        if speaker.role.owner is not None:
            return True
        is_shown = self._face.concerns(speaker.name, message)
        return is_shown and self._crossing.is_served_by(speaker)

    async def set_level(self, request: Request) -> bytes:
        """Answer a `logging/setLevel`."""
        level = level_named(request.message.params)
        if level is None and not self._member.scope.single:
            raise UsageError("`params.level` is no log level")
        if level is not None:
            self._client.level = self._member.level = level
        if not self._member.scope.single:
            for server in self._face.servers():
                # Not awaited: one of them may be slow, and the client need not know.
                self._crossing.lot.tasks.start_soon(self._raise_level, request, server)
            return request.result(b"{}")
        (server,) = self._face.servers()
        instance = await self._instance(request, server)
        if instance.era == "modern" and level is None:
            raise UsageError("`params.level` is no log level")
        if instance.era == "modern" or not self._is_most_verbose(instance, level):
            return request.result(b"{}")
        instance.interests.level = level or instance.interests.level
        return await self._crossing.over(request, server, {})

    async def _raise_level(self, request: Request, server: Server) -> None:
        instance = self._crossing.instance(request, server)
        level = self._router.audience.most_verbose(server.name)
        if level is not None and level != instance.interests.level:
            await instance.interests.set_level(level)

    def _is_most_verbose(self, instance: Instance, level: str | None) -> bool:
        most = self._router.audience.most_verbose(instance.name)
        is_own = instance.role.owner is not None
        return level is None or most is None or is_own or is_at_least(most, level)

    async def subscribe(self, request: Request) -> bytes:
        """Answer a `resources/subscribe` or `resources/unsubscribe`."""
        route = await self._face.route(request)
        if route is None:
            return request.unknown_method()
        uri = text_of(request.params, "uri") or ""
        key = (route.server.name, uri)
        if request.method == "resources/unsubscribe":
            return await self._unsubscribe(request, route, key)
        await self._router.reach(route.server, request.era)
        route.server.when_own[self._member.session] = self._moved
        instance = self._crossing.instance(request, route.server)
        # As it comes up it is told of what was wanted before, and of this by the client.
        await instance.exchange.greeting()
        before = self._subscribed.get(key)
        if before is not None and before.instance is instance:
            return request.result(b"{}")
        if before is not None:
            # A server that was replaced, or another process.
            before.drop()
        elif len(self._subscribed) >= SUBSCRIPTIONS_LIMIT:
            raise ServerBusy(f"{SUBSCRIPTIONS_LIMIT} resources are subscribed to already")
        # Before the answer: the first update may follow it on the heels.
        self._member.subscriptions.add(key)
        self._subscribed[key] = Wish(instance, uri)
        instance.interests.add(uri)
        try:
            if instance.era == "modern":
                await instance.interests.ask_for(uri)
                return request.result(b"{}")
            answer = await self._crossing.over(request, route.server, route.changes)
            if wire.decode(answer).error is not None:
                self._forget(key)
        except BaseException:
            self._forget(key)
            raise
        return answer

    async def _instance(self, request: Request, server: Server) -> Instance:
        """Return the process that serves the request, once its era is known."""
        await self._router.reach(server, request.era)
        instance = self._crossing.instance(request, server)
        if not instance.is_era_known:
            await instance.exchange.greeting()
        return instance

    def _forget(self, key: tuple[str, str], *, is_told: bool = True) -> None:
        self._member.subscriptions.discard(key)
        wish = self._subscribed.pop(key, None)
        if wish is not None:
            wish.drop(is_told=is_told)

    async def _unsubscribe(self, request: Request, route: Route, key: tuple[str, str]) -> bytes:
        instance, wish = self._crossing.instance(request, route.server), self._subscribed.get(key)
        # Only the process that serves the request hears it from the client.
        is_heard = instance.state == "ready" and (wish is None or wish.instance is instance)
        self._forget(key, is_told=is_heard)
        if wish is not None and not is_heard:
            return request.result(b"{}")
        instance = await self._instance(request, route.server)
        if instance.era == "modern" or instance.interests.has(key[1]):
            return request.result(b"{}")
        return await self._crossing.over(request, route.server, route.changes)

    async def listen(self, request: Request) -> bytes:
        """Answer a `subscriptions/listen`: acknowledged at once, and open until it is cancelled.

        It ends by itself when its face is there no more.
        """
        wanted = _filter(request)
        methods = [FILTER[name] for name, value in wanted.items() if name in FILTER and value]
        lists = await self._face.listenable(methods)
        uris, resources = wanted.get("resourceSubscriptions"), list[Wish]()
        own: list[Instance] = []
        try:
            await self._listen_to(request, uris if isinstance(uris, list) else [], resources)
            others = await self._listen_to_others(request, own)
            listen = self._listen(request, lists, resources, others)
            try:
                await listen.ended.wait()
            finally:
                self._router.audience.end(listen)
        finally:
            self._listened_to.difference_update(resources)
            for instance in own:
                instance.interests.forget(request)
            with anyio.CancelScope(shield=True):
                for wish in resources:
                    await wish.instance.interests.unsubscribe(wish.uri)
        return listen_result(request)

    async def _listen_to_others(self, request: Request, own: list[Instance]) -> dict[str, bytes]:
        """Let the server have what nobody here knows of a filter; return what it acknowledges.

        Only one server can be meant by that; its process is added to `own`.
        """
        raw = wire.member(request.params, "notifications") or b"{}"
        known = {*FILTER, "resourceSubscriptions"}
        others = {
            name: value
            for name, value in (bridge.members_of(raw) or {}).items()
            if name not in known
        }
        if not others or not self._member.scope.single:
            return {}
        (server,) = self._face.servers()
        instance = await self._instance(request, server)
        if instance.era != "modern":
            return {}
        own.append(instance)
        return await instance.interests.subscribe_to(request, others)

    def _listen(
        self,
        request: Request,
        lists: frozenset[str],
        resources: list[Wish],
        others: Mapping[str, bytes],
    ) -> Listen:
        """Acknowledge a subscription, and begin it."""
        accepted = {name: b"true" for name, method in FILTER.items() if method in lists}
        if resources:
            accepted["resourceSubscriptions"] = wire.text([wish.uri for wish in resources])
        accepted |= others
        listen = Listen(
            self._member.scope,
            request.id,
            lists,
            frozenset((wish.instance.name, wish.uri) for wish in resources),
            lambda line: self._say(request.send, line),
            self._member.session,
        )
        meta = b'{"%b":%b}' % (SUBSCRIPTION_KEY.encode(), request.id)
        members = (b"%b:%b" % (wire.text(name), value) for name, value in accepted.items())
        params = b'{"_meta":%b,"notifications":{%b}}' % (meta, b",".join(members))
        self._say(request.send, wire.notification(ACKNOWLEDGED, params))
        self._router.audience.listen(listen)
        return listen

    async def _listen_to(self, request: Request, uris: Sequence[object], found: list[Wish]) -> None:
        """Listen to what can be listened to of `uris`, which is added to `found`."""
        wanted = [uri for uri in uris if isinstance(uri, str)]
        if len(wanted) != len(uris):
            raise violated("`resourceSubscriptions` holds no URIs", wire.INVALID_PARAMS)
        for uri in wanted[:SUBSCRIPTIONS_LIMIT]:
            try:
                params = wire.text({"uri": uri})
                asked = wire.decode(wire.request(1, "resources/subscribe", params))
                route = await self._face.route(Request(asked, request.send, request.envelope))
                if route is None:
                    continue
                await self._router.know_eras(route.server)
                route.server.when_own[self._member.session] = self._moved
                instance = self._crossing.instance(request, route.server)
                await instance.interests.subscribe(uri)
            except OctaveError:
                # What cannot be listened to is left out of what is acknowledged.
                continue
            wish = Wish(instance, uri)
            found.append(wish)
            self._listened_to.add(wish)


def _filter(request: Request) -> Mapping[str, object]:
    raw = wire.member(request.params, "notifications")
    try:
        return msgspec.json.decode(raw or b"", type=dict[str, object])
    except msgspec.DecodeError:
        text = "`params.notifications` is missing, or no object"
        raise violated(text, wire.INVALID_PARAMS) from None


def listen_result(request: Request) -> bytes:
    """Return the line that ends a subscription in good order."""
    meta = b'{"%b":%b}' % (SUBSCRIPTION_KEY.encode(), request.id)
    return request.result(b'{"resultType":"complete","_meta":%b}' % meta)

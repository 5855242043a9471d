"""What a client wants to hear of by itself: log lines, updates of resources, changed lists.

Each session has its own wishes; a server that serves several is asked for the most that any of them
wants, and each hears no more than it asked for.
"""

from collections.abc import Callable, Mapping, Sequence

import anyio
import msgspec

from octave.errors import OctaveError, ServerBusy, UsageError
from octave.gateway.audience import Listen, Member, is_at_least, level_named
from octave.gateway.client import Client
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

SUBSCRIPTIONS_LIMIT = 1024
"""Resources that one session, or one subscription, may want to hear of."""


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
        self._subscribed: dict[tuple[str, str], Instance] = {}
        """The processes that were asked, by server and URI."""

    def close(self) -> None:
        """Want nothing any more."""
        while self._subscribed:
            (_, uri), instance = self._subscribed.popitem()
            instance.interests.drop(uri)
        self._member.subscriptions.clear()

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
        await self._router.reach(server, request.era)
        instance = self._crossing.instance(request, server)
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
        await self._router.reach(route.server, request.era)
        key = (route.server.name, text_of(request.params, "uri") or "")
        instance = self._crossing.instance(request, route.server)
        if request.method == "resources/unsubscribe":
            return await self._unsubscribe(request, route, instance, key)
        if key in self._subscribed:
            return request.result(b"{}")
        if len(self._subscribed) >= SUBSCRIPTIONS_LIMIT:
            raise ServerBusy(f"{SUBSCRIPTIONS_LIMIT} resources are subscribed to already")
        # Before the answer: the first update may follow it on the heels.
        self._member.subscriptions.add(key)
        self._subscribed[key] = instance
        instance.interests.add(key[1])
        try:
            if instance.era == "modern":
                await instance.interests.ask_for(key[1])
                return request.result(b"{}")
            answer = await self._crossing.over(request, route.server, route.changes)
            if wire.decode(answer).error is not None:
                self._forget(key)
        except BaseException:
            self._forget(key)
            raise
        return answer

    def _forget(self, key: tuple[str, str]) -> Instance | None:
        self._member.subscriptions.discard(key)
        instance = self._subscribed.pop(key, None)
        if instance is not None:
            instance.interests.drop(key[1], is_told=True)
        return instance

    async def _unsubscribe(
        self, request: Request, route: Route, instance: Instance, key: tuple[str, str]
    ) -> bytes:
        instance = self._forget(key) or instance
        if instance.era == "modern" or instance.interests.has(key[1]):
            return request.result(b"{}")
        return await self._crossing.over(request, route.server, route.changes)

    async def listen(self, request: Request) -> bytes:
        """Answer a `subscriptions/listen`: acknowledged at once, and open until it is cancelled."""
        wanted = _filter(request)
        methods = [FILTER[name] for name, value in wanted.items() if name in FILTER and value]
        lists = await self._face.listenable(methods)
        uris = wanted.get("resourceSubscriptions")
        resources = await self._listen_to(request, uris if isinstance(uris, list) else [])
        accepted: dict[str, object] = {
            name: True for name, method in FILTER.items() if method in lists
        }
        if resources:
            accepted["resourceSubscriptions"] = [uri for _, uri in resources]
        listen = Listen(
            self._member.scope,
            request.id,
            lists,
            frozenset((instance.name, uri) for instance, uri in resources),
            lambda line: self._say(request.send, line),
            self._member.session,
        )
        meta = b'{"%b":%b}' % (SUBSCRIPTION_KEY.encode(), request.id)
        params = b'{"_meta":%b,"notifications":%b}' % (meta, wire.text(accepted))
        self._say(request.send, wire.notification(ACKNOWLEDGED, params))
        self._router.audience.listen(listen)
        try:
            await anyio.sleep_forever()
        finally:
            self._router.audience.end(listen)
            with anyio.CancelScope(shield=True):
                for instance, uri in resources:
                    await instance.interests.unsubscribe(uri)
        return listen_result(request)

    async def _listen_to(
        self, request: Request, uris: Sequence[object]
    ) -> list[tuple[Instance, str]]:
        """Return what can be listened to of `uris`, now that it is."""
        found: list[tuple[Instance, str]] = []
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
                instance = self._crossing.instance(request, route.server)
                await instance.interests.subscribe(uri)
            except OctaveError:
                # What cannot be listened to is left out of what is acknowledged.
                continue
            found.append((instance, uri))
        return found


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

"""What else a model may be shown beside one server: the names of the tools of the others."""

from collections.abc import Collection

from octave.errors import OctaveError
from octave.home import Workspace
from octave.packages import manifest, offered, suspicious
from octave.packages.offered import Offered
from octave.packages.suspicious import Suspicion


def suspicions_of(workspace: Workspace, name: str, found: Offered) -> list[Suspicion]:
    """Return what is suspicious in what the server `name` offers, beside the others there are."""
    others = tool_names(workspace, name, found.names())
    return [
        *suspicious.of_tools(found.tools, others),
        *suspicious.of_server(found.initialize, others),
    ]


def tool_names(workspace: Workspace, name: str, own: Collection[str]) -> dict[str, set[str]]:
    """Return the names of tools that other servers were last seen to have and `name` has not."""
    try:
        servers = manifest.load(workspace.manifest).servers
    except OctaveError:
        return {}
    return {
        other: set(offered.kept_names(workspace.catalogue(other))).difference(own)
        for other in servers
        if other != name
    }

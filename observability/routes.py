"""The route's template of a request to Starlette, FastAPI, or what else routes as they do.

Starlette leaves the innermost route in the scope, without what it is mounted under, and the outermost router: the
template is found by looking the route up among that router's routes, once for each. Starlette before 1.0 leaves only
the endpoint; an endpoint of several routes is told apart by the path.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_DEEPEST = 10  # mounts within mounts


class Routes:
    """The templates of one application's routes, as they become known."""

    def __init__(self) -> None:
        # By the identity of a route or an endpoint, which is kept with it so that no other takes its place.
        self._known: dict[int, tuple[object, list[str]]] = {}
        self._most = 10_000

    def template(self, scope: Mapping[str, Any], inner: str = "") -> str:
        """Return the template of the route that the application matched; empty where none did.

        Args:
            scope: the request's, as the application has left it.
            inner: the route within a WSGI application that is mounted there.
        """
        for target in (scope.get("route"), scope.get("endpoint")):
            if target is not None and (candidates := self._candidates(scope.get("router"), target)):
                template = candidates[0] if len(candidates) == 1 else _fitting(candidates, scope["path"])
                return template.removesuffix("/{path}") + inner if inner else template
        return inner

    def _candidates(self, router: object, target: object) -> list[str]:
        """Return the templates under which a route, or an endpoint, is reached."""
        found = self._known.get(id(target))
        if found is None:
            found = target, list(dict.fromkeys(_walk(getattr(router, "routes", ()), target, "", 0)))
            if len(self._known) < self._most:
                self._known[id(target)] = found
        return found[1]


def _walk(routes: Iterable[Any], target: object, prefix: str, depth: int) -> Iterator[str]:
    for route in routes:
        for each in _expanded(route):
            path, within = prefix + str(getattr(each, "path", "")), getattr(each, "routes", None)
            if _is(each, target):
                yield path if within is None else f"{path}/{{path}}"
            if within and depth < _DEEPEST:
                yield from _walk(within, target, path, depth + 1)


def _expanded(route: Any) -> Iterable[Any]:
    """Return the routes that one entry stands for: a router that FastAPI includes has them with its prefix."""
    contexts = getattr(route, "effective_route_contexts", None)
    return [route] if contexts is None else [each.starlette_route or each for each in contexts()]


def _is(route: Any, target: object) -> bool:
    """Tell whether a route is what the scope names; by identity, since routes compare by what they say."""
    mounted = route.app if getattr(route, "routes", None) is not None else None
    of_it = (route, getattr(route, "original_route", None), getattr(route, "endpoint", None), mounted)
    return any(each is target for each in of_it)


def _fitting(templates: Iterable[str], path: str) -> str:
    """Return the template that a path fits, part by part; empty where none does."""
    parts = path.split("/")
    for template in templates:
        wanted = template.split("/")
        open_ended = wanted[-1].startswith("{") and wanted[-1].endswith(("path}", ":path}"))
        if len(wanted) != len(parts) and not (open_ended and len(parts) > len(wanted)):
            continue
        if all("{" in want or want == part for want, part in zip(wanted, parts, strict=False)):
            return template
    return ""

"""What a request needs beside a worker: rules/dependencies.yml."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count

from tests.prove.load import ask, pressing
from tests.prove.scenario import Scenario
from tests.prove.scenarios.pressure import FAILED, SLOW, faults
from tests.prove.stack import Setup, Stack
from tests.services import Redis

TODOS = 200


def _hold(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "hold?seconds=1", clients=12)


def _redis(setup: Setup, around: ExitStack) -> Redis:
    redis = Redis()
    around.enter_context(redis)
    setup.env["REDIS_URL"] = redis.url
    return redis


@contextmanager
def _redis_ends(stack: Stack) -> Iterator[None]:
    stack.extra.stop()
    yield
    stack.extra.start()


@contextmanager
def _walk(stack: Stack) -> Iterator[None]:
    for _ in range(TODOS):
        ask(stack.server.url + "/todos", "POST")
    numbers = count()
    with pressing(2, lambda _: ask(f"{stack.server.url}/todos/{next(numbers) % TODOS + 1}"), pause=0.04):
        yield


SCENARIOS = (
    Scenario(
        name="pool-exhausted",
        about="twelve clients hold the one connection of each worker's pool for a second each",
        alerts=("DatabasePoolExhausted",),
        inject=_hold,
        setup=Setup(
            env={
                "GUNICORN_THREADS": 16,
                "DATABASE_POOL_SIZE": 1,
                "DATABASE_POOL_OVERFLOW": 0,
                "DATABASE_POOL_TIMEOUT": 3,
            }
        ),
        related={**FAILED, **SLOW, "LogErrors": "each request that fails is logged as an error"},
        true_scale=True,
    ),
    Scenario(
        name="redis-gone",
        about="Redis, which the service caches in, is ended",
        alerts=("CacheDown",),
        inject=_redis_ends,
        arrange=_redis,
    ),
    Scenario(
        name="cache-too-small",
        about=f"clients walk over {TODOS} todos, and the cache holds ten",
        alerts=("CacheUseless",),
        inject=_walk,
        setup=Setup(env={"CACHE_ENTRIES": 10}),
    ),
)

"""The HTTP application of a service: its paths, their schemas, and how errors are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import textgym
from textgym.serve.chat import ChatService
from textgym.serve.chat_wire import ChatRequest, ChatResponse
from textgym.serve.guard import Guard
from textgym.serve.jobs import Answer, Jobs, RefusedError
from textgym.serve.metrics import Metrics
from textgym.serve.reference import ReferenceService
from textgym.serve.services import ScoringService, info_of
from textgym.serve.settings import Limits
from textgym.serve.wire import (
    REQUEST_ID,
    Health,
    Info,
    LogprobRequest,
    LogprobResponse,
    Problem,
    ScoreRequest,
    ScoreResponse,
    encodable,
)

RequestId = Annotated[
    str | None,
    Header(
        alias="X-Request-Id",
        pattern=REQUEST_ID,
        description="Equal for repetitions of one request, which are answered alike.",
    ),
]
_REFUSALS = {
    400: "The body is no JSON.",
    401: "The bearer token is missing or wrong.",
    403: "The service has no token and the request does not name this machine as its host.",
    408: "The request did not arrive in time.",
}
_WORK_REFUSALS = _REFUSALS | {
    409: "The service is not the one that the client expects.",
    413: "The request is too large.",
    422: "A field of the request cannot be used.",
    503: "Too many requests are pending.",
    504: "The work takes too long.",
}
_PLAIN_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_WORDS = {400: "no_json", 404: "not_found", 405: "method"}
_MAX_SHOWN = 10

AnyService = ScoringService | ReferenceService | ChatService


def create_app(
    service: AnyService,
    *,
    limits: Limits | None = None,
    token: str | None = None,
) -> FastAPI:
    """Return the ASGI application of a service.

    Args:
        service: what it computes; the application closes it when it shuts down.
        limits: how much it takes on.
        token: the bearer token it asks for; None answers requests from this machine only.
    """
    limits = limits or Limits()
    metrics = Metrics()
    jobs = Jobs(limits)
    metrics.watch_pending(lambda: jobs.num_pending)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()
        service.close()

    app = FastAPI(
        title=f"textgym {service.name}",
        version=textgym.__version__,
        description=f"Serves {service.title}.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    worker = _Worker(service, limits, metrics, jobs)
    _add_reports(app, worker)
    if isinstance(service, ScoringService):
        _add_scoring(app, service, worker)
    elif isinstance(service, ChatService):
        _add_chat(app, service, worker)
    else:
        _add_logprobs(app, service, worker)
    _answer_errors(app)
    paths = [getattr(route, "path", "") for route in app.routes]
    app.add_middleware(Guard, limits=limits, token=token, metrics=metrics, paths=paths)
    return app


class _Worker:
    """Does the work of a request, or says why not."""

    def __init__(
        self,
        service: AnyService,
        limits: Limits,
        metrics: Metrics,
        jobs: Jobs,
    ) -> None:
        self.service = service
        self.limits = limits
        self.metrics = metrics
        self._jobs = jobs

    async def run(
        self,
        request: Request,
        request_id: str | None,
        *,
        num_items: int,
        expected: str | None,
        work: Callable[[], Answer],
    ) -> Response:
        """Return the answer to a request for work."""
        if num_items > self.limits.max_items:
            limit = self.limits.max_items
            raise RefusedError(
                413,
                "too_many",
                f"{num_items} items; a request may hold {limit}, send fewer at once",
            )
        if expected is not None and expected != self.service.fingerprint:
            raise RefusedError(
                409,
                "fingerprint",
                f"this service is {self.service.fingerprint}, not the expected one; its rewards, "
                "their versions or their configuration have changed",
            )
        body = await self._jobs.run(request_id, await request.body(), work)
        headers = {} if request_id is None else {"X-Request-Id": request_id}
        return Response(body, media_type="application/json", headers=headers)


def _add_reports(app: FastAPI, worker: _Worker) -> None:
    bearer = [Depends(HTTPBearer(auto_error=False, description="Where the service has a token."))]
    limits = worker.limits
    info = info_of(worker.service, max_items=limits.max_items, max_body_bytes=limits.max_body_bytes)

    @app.get("/healthz", summary="Whether the service answers")
    async def healthz() -> Health:
        return Health()

    @app.get(
        "/v1/info", summary="What is served", dependencies=bearer, responses=_documented(_REFUSALS)
    )
    async def read_info() -> Info:
        return info

    @app.get(
        "/metrics",
        summary="Counts in Prometheus' text format",
        dependencies=bearer,
        response_class=Response,
        responses={**_documented(_REFUSALS), 200: _PLAIN_TEXT},
    )
    async def read_metrics() -> Response:
        return Response(worker.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_scoring(app: FastAPI, service: ScoringService, worker: _Worker) -> None:
    path = "/v1/execute" if service.name == "executor" else "/v1/score"
    summary = "Run programs against tests" if service.name == "executor" else "Score samples"

    @app.post(path, summary=summary, **_work_options(ScoreResponse))
    async def score(body: ScoreRequest, request: Request, request_id: RequestId = None) -> Response:
        def work() -> Answer:
            response = service.score(body, request_id)
            outcomes = [s.status if s.kind is None else f"failed/{s.kind}" for s in response.scores]
            worker.metrics.count_items(outcomes)
            is_final = not any(outcome.startswith("failed") for outcome in outcomes)
            return Answer(response.model_dump_json().encode(), is_final)

        return await worker.run(
            request,
            request_id,
            num_items=len(body.samples),
            expected=body.fingerprint,
            work=work,
        )


def _add_logprobs(app: FastAPI, service: ReferenceService, worker: _Worker) -> None:
    @app.post("/v1/logprobs", summary="Log-probabilities of ids", **_work_options(LogprobResponse))
    async def logprobs(
        body: LogprobRequest, request: Request, request_id: RequestId = None
    ) -> Response:
        def work() -> Answer:
            response = service.logprobs(body, request_id)
            worker.metrics.count_items(["evaluated"] * len(response.logprobs))
            return Answer(response.model_dump_json().encode(), True)

        return await worker.run(
            request,
            request_id,
            num_items=len(body.sequences),
            expected=body.fingerprint,
            work=work,
        )


def _add_chat(app: FastAPI, service: ChatService, worker: _Worker) -> None:
    path = "/v1/chat/completions"

    @app.post(path, summary="Go on with a conversation", **_work_options(ChatResponse))
    async def chat(body: ChatRequest, request: Request, request_id: RequestId = None) -> Response:
        def work() -> Answer:
            response = service.complete(body)
            worker.metrics.count_items(["answered"])
            return Answer(response.model_dump_json().encode(), True)

        return await worker.run(request, request_id, num_items=1, expected=None, work=work)


def _work_options(model: type[BaseModel]) -> dict[str, Any]:
    description = "Where the service has a token."
    return {
        "response_model": model,
        "dependencies": [Depends(HTTPBearer(auto_error=False, description=description))],
        "responses": _documented(_WORK_REFUSALS),
    }


def _documented(refusals: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": text} for status, text in refusals.items()}


def _answer_errors(app: FastAPI) -> None:
    """Answer every refusal as a `Problem` that quotes nothing of the request's values.

    A value can be text without a form in UTF-8 or a number that JSON does not know.
    """

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        return _problem(error.status, error.code, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        details = error.errors()
        mistakes = [
            f"{'.'.join(str(part) for part in each['loc'])[:200]}: {each['msg'][:200]}"
            for each in details[:_MAX_SHOWN]
        ]
        more = len(details) - len(mistakes)
        message = "; ".join(mistakes) + (f"; and {more} more" if more > 0 else "")
        is_json = not any(each["type"] == "json_invalid" for each in details)
        status, word = (422, "invalid") if is_json else (400, "no_json")
        return _problem(status, word, message)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        word = _WORDS.get(error.status_code, "refused")
        return _problem(error.status_code, word, str(error.detail), dict(error.headers or {}))


def _problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(error=code, message=encodable(message))
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers)

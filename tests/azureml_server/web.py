"""Requests, answers and routes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

WORKSPACE = (
    "/subscriptions/{subscription}/resource[Gg]roups/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)


@dataclass(frozen=True)
class Request:
    """What a client wants; `names` are the parts of the path that the route names."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    names: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    def __getitem__(self, name: str) -> str:
        return self.names[name]


@dataclass(frozen=True)
class Response:
    """What it gets."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "application/json"
    #: Sent in the body's place.
    file: Path | None = None


class HttpError(Exception):
    """A refusal, in the form in which Azure's services put it."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}

    def response(self) -> Response:
        # Without details the client cannot put its own exception into words.
        error = {"code": self.code, "message": self.message, "details": []}
        return answer({"error": error}, self.status, self.headers)


def not_found(what: str) -> HttpError:
    return HttpError(404, "ResourceNotFound", f"{what} was not found.")


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON."""
    return Response(status, json.dumps(value).encode(), headers or {})


def page(values: list[Any]) -> dict[str, Any]:
    """The only page of a list."""
    return {"value": values, "continuationToken": None, "nextLink": None}


Handler = Callable[[Request], Any]


@dataclass(frozen=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    handler: Handler
    #: Whether a bearer token is asked for; storage and discovery are reached without one.
    authorized: bool = True


def route(method: str, template: str, handler: Handler, authorized: bool = True) -> Route:
    """A route.

    `{ws}` stands for a workspace's path, `{name}` for one part of a path, `{name*}` for all the rest of it.
    """
    text = template.replace("{ws}", WORKSPACE)
    text = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.*)", text)
    text = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text)
    return Route(method, re.compile(f"{text}/?", re.IGNORECASE), handler, authorized)


def find(routes: list[Route], method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The first route that fits, and what it names."""
    for one in routes:
        if one.method == method:
            match = one.pattern.fullmatch(path)
            if match:
                return one, {name: unquote(value) for name, value in match.groupdict().items()}
    return None

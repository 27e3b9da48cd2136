"""Dockerfiles, read as the engine reads them."""

from __future__ import annotations

import pytest

from workflows.environments.dockerfile import parse, shell_command


@pytest.mark.parametrize(
    ("text", "arguments", "images"),
    [
        ("FROM python:3.11\n", {}, ["python:3.11"]),
        ("from python:3.11 as one\nFROM one\nFROM ONE AS two\n", {}, ["python:3.11"]),
        ("FROM --platform=linux/amd64 python:3.11 AS one\n", {}, ["python:3.11"]),
        ("FROM --platform=$BUILDPLATFORM \\\n  # a comment\n\n  python:3.11 \\\n  AS one\n", {}, ["python:3.11"]),
        ("# escape=`\nFROM `\n  python:3.11\nCOPY a\\ b\\\n", {}, ["python:3.11"]),
        ("#escape = `\r\nFROM `\r\npython:3.11\r\n", {}, ["python:3.11"]),
        ("# comment\n# escape=`\nFROM `\n  x\n", {}, ["`"]),
        ("ARG TAG=3.11\nFROM python:${TAG}\n", {}, ["python:3.11"]),
        ("ARG TAG=3.11\nFROM python:$TAG\n", {"TAG": "3.12"}, ["python:3.12"]),
        ('ARG A="x" B=$A-y\nFROM ${B}:1\n', {}, ["x-y:1"]),
        ("FROM python:${TAG:-3.10}\n", {}, ["python:3.10"]),
        ("ARG TAG=\nFROM python:${TAG:-3.10}${TAG:+-no}\n", {}, ["python:3.10"]),
        ("ARG TAG\nFROM python:$TAG\n", {}, []),
        ("FROM $UNKNOWN\nFROM scratch\n", {}, []),
        ("FROM python:3.11 AS one\nARG TAG=9\nFROM python:${TAG:-3.10}\n", {}, ["python:3.11", "python:3.10"]),
        ("FROM registry.example:5000/a/b:1@sha256:0f AS one\n", {}, ["registry.example:5000/a/b:1@sha256:0f"]),
        ("FROM a AS one\nCOPY --from=one / /\nCOPY --from=0 / /\nCOPY --chown=1 --from=b /x /\n", {}, ["a", "b"]),
        ("FROM a\nRUN --mount=type=bind,from=tools:1,target=/t true\n", {}, ["a", "tools:1"]),
        (
            "FROM a\nRUN <<EOF\nFROM no\nEOF\nRUN cat <<-'X' <<Y\n\tFROM no\n\tX\nFROM no\nY\nCOPY --from=b / /\n",
            {},
            ["a", "b"],
        ),
        ("FROM a\nRUN echo \\\nFROM no\n", {}, ["a"]),
        ("\ufeffFROM a\n", {}, ["a"]),
        ("FROM\n", {}, []),
        ("", {}, []),
    ],
)
def test_the_images_that_a_dockerfile_takes(text: str, arguments: dict[str, str], images: list[str]) -> None:
    assert parse(text).external_images(arguments) == images


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("RUN --mount=type=cache,target=/c make", "RUN --mount"),
        ("RUN --network=none make", "RUN --network"),
        ("COPY --link a b", "COPY --link"),
        ("COPY --chown=1:1 --chmod=755 a b", "COPY --chmod"),
        ("ADD --checksum=sha256:0 http://x /y", "ADD --checksum"),
        ("COPY --exclude=*.md a b", "COPY --exclude"),
        ("RUN <<EOF\nmake\nEOF", "RUN <<EOF"),
        ("COPY <<'EOF' /x\nmake\nEOF", "COPY <<EOF"),
        ("ONBUILD RUN --mount=type=cache,target=/c make", "RUN --mount"),
        ("ARG TARGETARCH", "ARG TARGETARCH"),
        ("FROM --platform=$BUILDPLATFORM a AS b", "FROM with $BUILDPLATFORM"),
        ("run \\\n# which\n  --mount=type=secret,id=x make", "RUN --mount"),
        ("FROM --platform=linux/amd64 a AS b", None),
        ("COPY --from=b --chown=1 a b", None),
        ("HEALTHCHECK --interval=5s CMD true", None),
        ("RUN make --mount=1", None),
        ("RUN cat <<< word", None),
        ('RUN echo "<<EOF" $((1 << 2))', None),
        ('RUN ["cat", "<<EOF"]', None),
        ("ENV A <<EOF", None),
        ("# RUN --mount=type=cache make", None),
        ("ARG TARGETARCH=amd64", None),
    ],
)
def test_what_only_buildkit_knows(text: str, needed: str | None) -> None:
    found = parse(f"FROM base\n{text}\nRUN true\n").needs_buildkit()
    assert (found and found[1]) == needed
    if found is not None:
        assert found[0].line == 2


def test_where_instructions_stand_and_what_they_say() -> None:
    text = '# syntax=docker/dockerfile:1\n\nFROM a\nRUN one \\\n  two\nRUN <<E\nthree\nE\nCMD ["x", "y z"]\n'
    parsed = parse(text)
    assert parsed.syntax == "docker/dockerfile:1"
    assert [(one.keyword, one.line, one.last) for one in parsed.instructions] == [
        ("FROM", 3, 3),
        ("RUN", 4, 5),
        ("RUN", 6, 8),
        ("CMD", 9, 9),
    ]  # fmt: skip
    assert shell_command(parsed.instructions[1]) == "one   two"
    assert shell_command(parsed.instructions[3]) == "x y z"


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n", True),
        ("arg OTHER BASE_IMAGE=python:3.11\nFROM $BASE_IMAGE\n", True),
        ("# BASE_IMAGE is not used here\nFROM python:3.11\n", False),
        ("ARG BASE_IMAGE_TAG=1\nFROM python:3.11\n", False),
    ],
)
def test_whether_an_argument_is_declared(text: str, declared: bool) -> None:
    assert parse(text).has_argument("BASE_IMAGE") is declared

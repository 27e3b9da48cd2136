"""Files made wrong: what a slip of the hand does to them, and what somebody would do on purpose."""

from __future__ import annotations

import random
from collections.abc import Sequence

#: What no reader likes, whatever the file.
ODD = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\t",
    b"\r",
    b"\n",
    b"\x1b[31m",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"0x" + b"f" * 5000,
    b"-1e5000",
    b"a" * 300,
    b"~nouser/x",
    b"http://[::1",
    b"x" * 300 + b".py",
)
YAML = (
    *(
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"- ",
        b": ",
        b"? ",
        b"!!int ",
        b"!!timestamp ",
        b"!!float ",
        b"!!bool ",
        b"!!binary ",
    ),
    *(
        b"!!set ",
        b"!!null ",
        b"!!python/object:os.system ",
        b"!x ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"'",
        b'"',
        b"|",
        b">-",
        b"#",
    ),
    *(
        b"%YAML 9.9\n",
        b"---\n",
        b"...\n",
        b"2021-02-30",
        b"1:2:3",
        b".inf",
        b".nan",
        b"0b1",
        b"!!int ''",
        b"null",
        b"~",
    ),
    *(b"${{", b"}}", b"$[[", b"]]", b"${{inputs.x}}", b"${{parent.inputs.x}}", b"${{parent.jobs.a.outputs.b}}"),
)
JSON = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b'\\"',
        b"\\",
        b"//",
        b"/*",
        b"*/",
        b"// x  \n",
        b"/* y */  ",
        b",]",
        b",}",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1E+5",
        b'"name": ["x"],',
        b'"name": {},',
        b'"label": {"a": 1},',
        b'"\\ud800"',
    ),
    *(
        b'"configurations": 3,',
        b'"compounds": {},',
        b'"tasks": null,',
        b'"options": [],',
        b'"connect": 5,',
        b'"pathMappings": [[]],',
    ),
)
LINES = (
    *(
        b"-r ",
        b"-c ",
        b"-e ",
        b"./",
        b"../",
        b" @ file:///x",
        b"#egg=",
        b"[",
        b"]",
        b";",
        b" # x",
        b"\\\n",
        b"--hash=sha256:0",
    ),
    *(
        b"=",
        b"'",
        b'"',
        b"export ",
        b"AML_",
        b"AML_DEBUG_PORT=",
        b"${X}",
        b"file://[::1",
        b"-r requirements.txt\n",
        b"--find-links ",
    ),
)


def mutated(data: bytes, source: random.Random, pieces: Sequence[bytes]) -> bytes:
    """The same with one to six things wrong."""
    for _ in range(source.randint(1, 6)):
        first = source.randint(0, len(data))
        last = min(len(data), first + source.choice((1, 2, 8, 40, 200)))
        other = source.randint(0, len(data))
        piece = source.choice(pieces if source.random() < 0.8 else ODD)
        match source.randrange(9):
            case 0:
                data = data[:first] + data[last:]
            case 1:
                data = data[:first] + piece + data[first:]
            case 2:
                data = data[:first] + piece + data[last:]
            case 3:
                data = data[:other] + data[first:last] + data[other:]
            case 4:
                data = data[:first] + piece * source.choice((2, 30, 300, 3000)) + data[first:]
            case 5:
                data = data[:first]
            case 6:
                data = data.replace(b"\n", source.choice((b"\r", b"\r\n", b"\n\n", b"  \n", b" ")))
            case 7:
                lines = data.split(b"\n")
                source.shuffle(lines)
                data = b"\n".join(lines)
            case _:
                data = data[:first] + bytes([source.randrange(256)]) + data[first + 1 :]
    return data

"""A debugger that is connected while the adapter ends."""

from __future__ import annotations

import json
import socket

from workflows.debuggee.azureml_debuggee.pair import Pair


def test_a_debugger_whose_first_word_finds_the_adapter_gone_goes_on_with_the_next_one() -> None:
    body = json.dumps({"seq": 1, "type": "request", "command": "initialize", "arguments": {}}).encode()
    first = b"Content-Length: %d\r\n\r\n" % len(body) + body
    client, editor = socket.socketpair()
    ours, adapter = socket.socketpair()
    following, next_adapter = socket.socketpair()
    with client, editor, ours, adapter, following, next_adapter:
        pair = Pair(client, ours, 1, first, b"")
        assert pair.proceed(())
        adapter.close()
        pair.send()
        assert not pair.is_over
        # Its end is noticed a moment later than the failed write.
        assert pair.can_read(ours) and pair.may_rejoin()
        pair.rejoin(following, 2)
        pair.send()
        assert next_adapter.recv(4096) == first

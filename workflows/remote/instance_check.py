"""Checks the route to a compute instance through its workspace, one thing after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ..errors import UserError
from ..findings import Finding
from ..received import display_text
from .instances import Instance, find_local_key


def check_instance(target: Instance, say: Callable[[str], None] | None) -> Iterator[Finding]:
    """Check one thing after the other. If the last finding has not failed, the route works.

    Args:
        target: The instance.
        say: Called with the text of what is being waited for.
    """
    from ..azureml.relay import instance, tokens

    name = "package"
    try:
        yield Finding(name, True, instance.require_packages(target.auth) or "all that it takes is installed")
        name = "sign-in"
        tokens.token(target, report=say)
        who = tokens.claims(target)
        shown = next(
            (display_text(who[one], "a name", 120) for one in ("upn", "unique_name", "name", "appid") if who.get(one)),
            "",
        )
        way = "the factory of AML_AUTH" if ":" in target.auth else f"AML_AUTH={target.auth}"
        yield Finding(name, True, f"as {shown}" if shown else f"by {way}")
        name = "workspace"
        instance.look_up_workspace(target, say)
        yield Finding(name, True, f"{target.workspace} (resource group {target.resource_group})")
        name = "instance"
        found = instance.look_up(target, say)
        instance.require_usable(target, found)
        if found.owner:
            yield Finding(
                name, None, f"{target.name} is {found.state}, and belongs to {found.owner}",
                "Its owner alone is let in, as a rule: name an instance of your own.",
            )  # fmt: skip
        else:
            yield Finding(name, True, f"{target.name} is {found.state}")
        name = "SSH key"
        if not found.public_key:
            yield Finding(name, None, "Azure has none for it", instance.key_advice(target, found))
        else:
            here = find_local_key(found.public_key)
            where = f", which is {here}" if here else ""
            yield Finding(name, True, f"Azure has {instance.describe_key(found.public_key)}{where}")
        name = "websocket"
        began = time.monotonic()
        instance.open_stream(target, found, say).close()
        yield Finding(name, True, f"opens in {time.monotonic() - began:.2f} s")
    except UserError as error:
        yield Finding(name, False, error.problem, error.remedy)

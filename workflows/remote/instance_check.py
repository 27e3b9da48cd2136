"""What can be wrong on the way to a compute instance through its workspace, looked at one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ..errors import UserError
from ..findings import Finding
from ..received import display_text
from .instances import Instance, key_here


def through_workspace(target: Instance, say: Callable[[str], None] | None) -> Iterator[Finding]:
    """Look at one thing after the other; the last one that is given has failed, or the way is free.

    Args:
        target: The instance.
        say: Shown what is waited for.
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
            here = key_here(found.public_key)
            where = f", which is {here}" if here else ""
            yield Finding(name, True, f"Azure has {instance.describe_key(found.public_key)}{where}")
        name = "websocket"
        began = time.monotonic()
        instance.open_stream(target, found, say).close()
        yield Finding(name, True, f"opens in {time.monotonic() - began:.2f} s")
    except UserError as error:
        yield Finding(name, False, error.problem, error.remedy)

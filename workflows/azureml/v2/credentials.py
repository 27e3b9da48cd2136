"""Signs in with azure-identity, in the way that AML_AUTH names."""

from __future__ import annotations

import logging
import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

from ...errors import UserError
from ...redaction import keep_secret
from ...settings import Settings, service_principal
from ..custom_sign_in import call_factory
from ..errors import SignInRefused, message_of
from .clouds import Cloud, is_known
from .sign_in_errors import explain_sign_in_error

#: Seconds for `az` to answer; it is slow to start.
_AZ_SECONDS = 30


def make_credential(settings: Settings, cloud: Cloud) -> Any:
    """A credential: an object with ``get_token(*scopes)``, as all of Azure's newer SDKs use it.

    Args:
        settings: Who signs in.
        cloud: The cloud to sign in to.

    Raises:
        UserError: Something that it needs is missing.
    """
    return _Explaining(settings.auth, _sign_in_method(settings, cloud))


class _Explaining:
    """Wraps a credential, and turns its errors into this program's."""

    def __init__(self, auth: str, inner: Any) -> None:
        self._auth, self._inner = auth, inner

    def get_token(self, *scopes: str, **more: Any) -> Any:
        """A token for these scopes.

        Raises:
            SignInRefused: There is none.
        """
        try:
            found = self._inner.get_token(*scopes, **more)
            keep_secret(str(found.token))
            float(found.expires_on)
        except Exception as error:
            explained = explain_sign_in_error(self._auth, error)
            if explained is error:
                raise
            raise explained from error
        return found


def _sign_in_method(settings: Settings, cloud: Cloud) -> Any:
    if ":" in settings.auth:
        return _custom_credential(settings)
    require_azure_identity()
    from azure import identity

    place = {
        "authority": cloud.login.partition("://")[2].rstrip("/"),
        # Instance discovery asks the public cloud, which does not know custom clouds.
        "disable_instance_discovery": not is_known(cloud),
    }
    if settings.auth == "service-principal":
        principal = service_principal(settings.project)
        keep_secret(principal.client_secret)
        return identity.ClientSecretCredential(
            principal.tenant_id, principal.client_id, principal.client_secret, **place
        )
    if settings.auth == "managed-identity":
        return identity.ManagedIdentityCredential()
    return _Interactive(place)


class _Interactive:
    """Uses `az login` where the user has run it; else, at a terminal, a browser or a device code."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        self._place = place
        self._signed_in: Any = None

    def get_token(self, *scopes: str, **more: Any) -> Any:
        """A token for these scopes."""
        from azure import identity

        if self._signed_in is not None:
            return self._signed_in.get_token(*scopes, **more)
        az = identity.AzureCliCredential(process_timeout=_AZ_SECONDS)
        try:
            found = az.get_token(*scopes, **more)
        except Exception as error:
            # az is missing, or nobody is signed in with it.
            if type(error).__module__.partition(".")[0] != "azure":
                raise
            if not sys.stdin.isatty():
                # It would open a browser, or wait for a code that nobody enters.
                why = (
                    ""
                    if isinstance(error, identity.CredentialUnavailableError)
                    else f" (az: {message_of(error).removeprefix('ERROR: ')})"
                )
                raise SignInRefused(
                    f"You are not signed in to Azure{why}, and there is no terminal to sign in from.",
                    "Sign in first (az login), or set AML_AUTH=service-principal or managed-identity.",
                ) from error
            self._signed_in = self._by_hand(identity)
            return self._signed_in.get_token(*scopes, **more)
        self._signed_in = az
        return found

    def _by_hand(self, identity: Any) -> Any:
        if _has_browser():
            return identity.InteractiveBrowserCredential(**self._place)
        return identity.DeviceCodeCredential(prompt_callback=_show_code, **self._place)


def _show_code(page: str, code: str, _ends: Any) -> None:
    # Standard output may be JSON.
    sys.stderr.write(f"To sign in, open {page} in a browser and enter the code {code}\n")
    sys.stderr.flush()


def _has_browser() -> bool:
    """Whether a graphical browser can be opened here."""
    try:
        return not isinstance(webbrowser.get(), webbrowser.GenericBrowser)
    except webbrowser.Error:
        return False


def require_azure_identity() -> None:
    """Check that azure-identity is installed, and keep its log messages off the terminal.

    Raises:
        UserError: It is not installed.
    """
    from ..sdk import install_command, version_of

    if version_of("azure-identity") is None:
        raise UserError("azure-identity is not installed.", f"Install the extra: {install_command('v2')}")
    # Without a handler, their log messages would go to standard error beside this program's two lines.
    for name in ("azure", "msal"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def _custom_credential(settings: Settings) -> Any:
    """The credential that `MODULE:FACTORY` in AML_AUTH makes: one of azure-identity, or the user's own."""
    return call_factory(
        settings,
        lambda made: callable(getattr(made, "get_token", None)),
        "an object with get_token(*scopes)",
        "which gives no tokens",
    )

"""What an agent is not shown of a program's values."""

from __future__ import annotations

import pytest

from workflows.mcp_server.secret_filter import LEFT_OUT, SecretFilter


@pytest.mark.parametrize(
    "expression",
    [
        "password",
        "config.api_key",
        "config['api_key']",
        'os.environ["AZURE_CLIENT_SECRET"]',
        "[password for _ in range(3)]",
        "login(password=x)",
        "lambda token: 1",
        "f'{secret!r}'",
        "print password",
    ],
)
def test_an_expression_that_names_a_secret_is_known(expression: str) -> None:
    assert SecretFilter().names_secret(expression)


@pytest.mark.parametrize("expression", ["monkey", "tokenizer.encode(text)", "rows[0]['price']", "len(turkeys)", "1 +"])
def test_one_that_names_none_is_not(expression: str) -> None:
    assert not SecretFilter().names_secret(expression)


def test_what_was_left_out_by_its_name_is_left_out_everywhere() -> None:
    left_out = SecretFilter()
    assert left_out.mask_value("password", "'hunter22x'") == LEFT_OUT
    assert left_out.mask_value("line", "'login hunter22x'") == "'login ***'"
    assert left_out.mask_source("connect('hunter22x')") == "connect('***')"


def test_values_in_containers_and_texts_that_were_cut_off_are_left_out_too() -> None:
    left_out = SecretFilter()
    assert "hunter22" not in left_out.mask_text("{'user': 'ann', 'password': 'hunter22', 'rate': 3}")
    assert left_out.mask_text("{'user': 'ann', 'api_key': 'sk-12345...") == "{'user': 'ann', 'api_key': ***"
    assert left_out.mask_text("{'user': 'ann...") == "{'user': 'ann..."
    deep = left_out.mask_deep({"rows": [{"token": "abc12345", "price": 3}], "ok": True, "secret": None})
    assert deep == {"rows": [{"token": LEFT_OUT, "price": 3}], "ok": True, "secret": None}


def test_the_persons_own_pattern_counts() -> None:
    assert SecretFilter("^patient").mask_value("patient_name", "'Ann'") == LEFT_OUT
    assert SecretFilter("^patient").names_secret("patient_name.upper()") == "patient_name"
    assert SecretFilter().mask_value("patient_name", "'Ann'") == "'Ann'"

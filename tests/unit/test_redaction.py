"""Secrets are left out of a text whatever form they have; a text without any is unchanged."""

from __future__ import annotations

import random
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import Hostile

from workflows import redaction
from workflows.redaction import (
    MASK,
    LineScrubber,
    keep_address,
    keep_inputs,
    keep_secret,
    keep_variables,
    scrub,
    scrub_value,
)

CANARY = "Canary7Zq"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have made known, and this process's own variables, are not."""
    known = redaction._Known()
    known._environment = True
    monkeypatch.setattr(redaction, "_known", known)


# Each form with the secret as {}, and what is shown of it.
FORMS = {
    "https://a.blob.core.windows.net/c/f.txt?sv=2019&sig={}&se=1": "https://a.blob.core.windows.net/c/f.txt?sv=2019&sig=***&se=1",
    "https://host/path?sv=1&sig={}": "https://host/path?sv=1&sig=***",
    "http://user:{}@host/": "http://***@host/",
    "machine h\n  login bob\n  password {}": "machine h\n  login bob\n  password ***",
    "Step 3/5 : ENV API_TOKEN {}": "Step 3/5 : ENV API_TOKEN ***",
    '{"primaryKey": "{}", "secondaryKey": "{}"}': '{"primaryKey": "***", "secondaryKey": "***"}',
    "SSHPASS={}": "SSHPASS=***",
    "authorization=Bearer%20{}": "authorization=Bearer%20***",
    "InstrumentationKey={};IngestionEndpoint=https://h/": "InstrumentationKey=***;IngestionEndpoint=https://h/",
    "http://user:{}@host:8080/a/b?c=d": "http://***@host:8080/a/b?c=d",
    "http://user:pa/{}@host/x": "http://***@host/x",
    "http://user@corp:{}@host/x": "http://***@host/x",
    "HTTP://USER:{}@HOST/x": "HTTP://***@HOST/x",
    "git+https://{}@github.com/o/r.git@v1": "git+https://***@github.com/o/r.git@v1",
    "/home/me/https:/user:{}@host/x does not exist": "/home/me/https:/***@host/x does not exist",
    "C:\\work\\https:\\user:{}@host\\x": "C:\\work\\https:\\***@host\\x",
    "Step 1/4 : FROM me:{}@registry:5000/image:1": "Step 1/4 : FROM ***@registry:5000/image:1",
    "ssh://git:{}@host/x": "ssh://git:***@host/x",
    "mongodb+srv://u:{}@cluster/db?w=1": "mongodb+srv://***@cluster/db?w=1",
    "Looking in indexes: https://a/simple, https://__token__:{}@b/simple": "Looking in indexes: https://a/simple, https://***@b/simple",
    "to=https%3A%2F%2Fuser%3A{}%40host%2Fx": "to=https%3A%2F%2F***%40host%2Fx",
    "to=https%3A%2F%2Fhost%2Fx%3Fsig%3D{}%26se%3D1": "to=https%3A%2F%2Fhost%2Fx%3Fsig%3D***%26se%3D1",
    'x?a=1\\u0026sig={}\\u0026b=2"': 'x?a=1\\u0026sig=***\\u0026b=2"',
    "https://f.azurewebsites.net/api/f?code={}&x=1": "https://f.azurewebsites.net/api/f?code=***&x=1",
    "https://x/y?access_token={}#top": "https://x/y?access_token=***",
    "https://x/y?X-Amz-Credential={}%2F20260101&X-Amz-Signature=ab": "https://x/y?X-Amz-Credential=***&X-Amz-Signature=***",
    "https://maps/api?key={}&q=1": "https://maps/api?key=***&q=1",
    "Proxy: HTTPS_PROXY=user:{}@proxy:3128": "Proxy: HTTPS_PROXY=***@proxy:3128",
    "AccountName=a;AccountKey={}==;EndpointSuffix=x": "AccountName=a;AccountKey=***;EndpointSuffix=x",
    "Endpoint=sb://x/;SharedAccessKeyName=k;SharedAccessKey={}=": "Endpoint=sb://x/;SharedAccessKeyName=k;SharedAccessKey=***",
    "Server=x;Database=y;User Id=me;Pwd={};Encrypt=yes": "Server=x;Database=y;User Id=me;Pwd=***;Encrypt=yes",
    "Authorization: Bearer {}": "Authorization: Bearer ***",
    "{{'Authorization': 'Basic {}='}}": "{'Authorization': 'Basic ***'}",
    "x-api-key: {}": "x-api-key: ***",
    "Ocp-Apim-Subscription-Key: {}": "Ocp-Apim-Subscription-Key: ***",
    "Set-Cookie: id={}; Path=/": "Set-Cookie: ***",
    '{{"password": "{} with blanks", "user": "me"}}': '{"password": "***", "user": "me"}',
    '{{\\"clientSecret\\": \\"{}\\", \\"x\\": 1}}': '{\\"clientSecret\\": \\"***\\", \\"x\\": 1}',
    "connect(user='me', password='{}', port=1)": "connect(user='me', password='***', port=1)",
    "password={}, user=me": "password=***, user=me",
    "password={}a,b&c;d": "password=***",
    "DB_PASSWORD: {}": "DB_PASSWORD: ***",
    "export WANDB_API_KEY={}": "export WANDB_API_KEY=***",
    "grant_type=x&client_secret={}&scope=y": "grant_type=x&client_secret=***&scope=y",
    "<DbPassword>{}</DbPassword>": "<DbPassword>***</DbPassword>",
    "machine host login me password {}": "machine host login me password ***",
    "inv x -- train.py --password {} --epochs 3": "inv x -- train.py --password *** --epochs 3",
    "train.py --api-key='{} x' --token \"{} y\"": "train.py --api-key='***' --token ***",
    "curl -u me:{} https://host/ --proxy-user=me:{}": "curl -u me:*** https://host/ --proxy-user=me:***",
    "nc -X connect --proxy-auth me:{} %h %p": "nc -X connect --proxy-auth me:*** %h %p",
    "docker login -u me -p {} registry": "docker login -u me -p *** registry",
    "sshpass -p {} ssh host": "sshpass -p *** ssh host",
    "https://conda.anaconda.org/t/me-{}/channel": "https://conda.anaconda.org/t/***/channel",
    "Command '['x', '--client-secret', '{}', '--y']' failed": "Command '['x', '--client-secret', '***', '--y']' failed",
    "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n{}\n-----END RSA PRIVATE KEY-----\nb": "a\n***\nb",
    "key: -----BEGIN PRIVATE KEY-----\\nMIIE{}\\n": "key: ***",
    "got eyJhbGciOiJI.{}.abc-_ of nobody": "got *** of nobody",
    "no ghp_{}0123456789012345678901234567 there": "no *** there",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_left_out_and_the_rest_stays(form: str) -> None:
    text = form.format(CANARY, CANARY) if "{{" in form else form.replace("{}", CANARY)
    assert scrub(text) == FORMS[form]
    assert scrub(FORMS[form]) == FORMS[form]


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/score and http://[::1]:5678/ and http://[::1",
        "http://registry:4873/@scope/package http://host:port/x http://127.0.0.1:PORT",
        "ssh://git@github.com/o/r.git, git@github.com:o/r.git, azureuser@10.0.0.1:50000",
        "image:tag@sha256:0123456789abcdef registry:5000/image:1@sha256:0123456789 step:12@host/x",
        "azureml:environment@latest azureml:name:1",
        "https://host/path?sv=1&se=2026-01-01&sp=r&page=2",
        "exit code: 1, code=3, StatusCode=500, bypass=true, pass: 3, fail: 2",
        "Unexpected token: foo; max_token=512 pad_token='<pad>' token=None loss per token: 0.25",
        "The sign-in code: 5 tokens are left; see https://aka.ms/x and passwords.txt",
        "AML_REMOTE_KEY=/home/me/.ssh/id_rsa PWD=/home/me primary_key=id, sort_key=3, key: value, design=2",
        "Basic usage; Basic authentication; Bearer authentication failed",
        'www-authenticate: Bearer realm="https://auth.docker.io/token",service="registry"',
        "no matching signature: (x, y); expected signature=(int) -> str; 'signature' is not defined",
        "Enter passphrase for key 'x'; Sets the password --password TEXT; docker run -u 1000:1000 -p 80:80",
        "KeyError: 'password'; the token; secret; a password",
        "secret=False, encryption_key=None: wasbs://container@account.blob.core.windows.net/x",
        "abfss://files@account.dfs.core.windows.net/path",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    ],
)
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert scrub(text) == text


REFERENCES = [
    "${{inputs.password}}", "${{ parent.inputs.password }}", "$VAR", "${VAR}", "${db_password}", "%VAR%", "<password>",
    "$env:DB_PASSWORD",
]  # fmt: skip
#: Where a value stands under a secret's name, with the value as {}.
UNDER_A_NAME = [
    "python s.py --password {}", "python s.py --password {} --epochs 3", 'python s.py --password "{}" x',
    "s.py --token={}",
    "{'--password', '{}', '--x'}", 'run ["--client-secret", "{}"]', "DB_PASSWORD={} python s.py", "login (password={})",
    '{"password": "{}"}', "docker login -u me -p {} registry", "curl -u me:{} http://host/", "sshpass -p {} ssh host",
]  # fmt: skip


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("form", UNDER_A_NAME)
def test_what_only_names_a_secret_stays_whole(form: str, reference: str) -> None:
    text = form.replace("{}", reference)
    assert scrub(text) == text
    assert scrub(form.replace("{}", CANARY)) == form.replace("{}", MASK).replace('"***" x', "*** x")
    assert scrub_value({"password": reference, "x": [text]}) == {"password": reference, "x": [text]}


def test_a_shells_variable_in_small_letters_stays_whole_where_a_shell_reads_it() -> None:
    assert scrub("s.py --password $db_password --x") == "s.py --password $db_password --x"
    assert scrub("s.py --password '$db_password'") == "s.py --password ***"
    assert scrub("password=$ecret") == "password=***"


@pytest.mark.parametrize("value", ["${VAR}" + CANARY, CANARY + "${VAR}", "${{inputs.user}}:" + CANARY, "$" + CANARY])
def test_a_secret_beside_a_reference_is_left_out_with_it(value: str) -> None:
    assert scrub(f"s.py --password {value} --x") == "s.py --password *** --x"


def test_a_usage_with_words_in_angle_brackets_stays_whole() -> None:
    assert scrub("--password <password> --user <user>") == "--password <password> --user <user>"


def test_a_value_that_is_a_reference_or_its_own_name_is_not_known_as_a_secret() -> None:
    keep_variables({"A_TOKEN": "${{inputs.token}}", "B_TOKEN": "%TOKENS%", "API_KEY": "api_key"})
    text = "x ${{inputs.token}} %TOKENS% api_key"
    assert scrub(text) == text


def test_literal_inputs_with_a_secrets_name_are_known() -> None:
    keep_inputs({"password": "topsecret77", "apiKey": "other-key", "primary_key": "customer_id", "pad_token": "<pad>"})
    keep_inputs({"password_file": "pw-file.txt", "url": "https://me:canary-pw@host/"})
    shown = "*** *** customer_id <pad> pw-file.txt ***"
    assert scrub("topsecret77 other-key customer_id <pad> pw-file.txt canary-pw") == shown


def test_values_of_secret_variables_are_left_out_in_every_spelling(tmp_path: Path) -> None:
    value = "s3cr/t&p+ss w'rd\\x"
    keep_variables({"AZURE_CLIENT_SECRET": value, "AML_REMOTE_KEY": "remote-key", "NOT_SO": "plain words"})
    for spelling in (value, quote(value), quote(value, safe=""), quote(value, safe="").lower(), repr(value)[1:-1]):
        if spelling != spelling.lower() or spelling == quote(value, safe=""):
            assert scrub(f"it is {spelling}.") == f"it is {MASK}."
    assert scrub("plain words and remote-key") == "plain words and remote-key"
    keep_variables({"MY_KEY": str(tmp_path), "A_TOKEN": "true", "THE_PASSWORD": "password"})
    assert scrub(f"{tmp_path} is true, a password") == f"{tmp_path} is true, a password"


def test_a_short_known_value_counts_where_it_stands_alone() -> None:
    keep_secret("hunter2")
    assert scrub("hunter2 is not hunter23") == f"{MASK} is not hunter23"


def test_parts_of_a_known_address_are_left_out_on_their_own() -> None:
    keep_address(f"https://user:{CANARY}%21@host/x?sv=1&sig=sigOf{CANARY}%3D")
    assert CANARY not in scrub(f"nonnumeric port: '{CANARY}%21@host'; {CANARY}!; sig of sigOf{CANARY}=")
    keep_variables({"PIP_EXTRA_INDEX_URL": "https://a/ https://u:other-password@b/", "http_proxy": "u:proxy-pw@c:1"})
    assert scrub("other-password proxy-pw") == f"{MASK} {MASK}"


def test_a_folded_line_hides_no_secret() -> None:
    keep_secret("a-secret-of-some-length")
    assert scrub("x a-secret-of\n   -some-length y") == f"x {MASK} y"
    assert scrub("sig=abc12def\n34ghi\nnext 12") == f"sig={MASK}\nnext 12"
    assert scrub("at http://user:begun") == f"at http://{MASK}"


def test_a_private_key_that_comes_line_by_line_is_left_out() -> None:
    scrub_line = LineScrubber()
    key = ["-----BEGIN OPENSSH PRIVATE KEY-----", CANARY, CANARY, "-----END OPENSSH PRIVATE KEY-----"]
    shown = [scrub_line(line) for line in ["before", *key, "after"]]
    assert shown[0] == "before" and shown[-1] == "after" and set(shown[1:-1]) == {MASK}
    scrub_line("-----BEGIN PRIVATE KEY-----")
    assert [scrub_line(str(number)) for number in range(300)][-1] == "299"


def test_what_comes_after_a_key_that_was_only_spoken_of_or_between_its_lines_is_shown() -> None:
    scrub_line, body = LineScrubber(), (CANARY * 8)[:64]
    scrub_line("error: no -----BEGIN PRIVATE KEY----- in key.pem")
    for line in ("epoch 1: loss 0.25", "", "hello", "Traceback (most recent call last):"):
        assert scrub_line(line) == line or line == "hello"
    # A log may have a prefix before each line, and lines of others in between.
    assert scrub_line(f"train | {body}") == scrub_line(body) == scrub_line("\x1b[0m" + body + "\x1b[1m") == MASK
    assert scrub_line("rank 1 | step 3") == "rank 1 | step 3"
    assert scrub_line("train | Canary==") == MASK
    assert scrub_line("train | -----END PRIVATE KEY-----") == MASK
    assert scrub_line("train | Canary==") == "train | Canary=="


def test_objects_are_scrubbed_by_their_names_too() -> None:
    value = {"url": f"http://u:{CANARY}@h/", "password": CANARY, "list": [f"--token {CANARY}", 1], "port": 5, "n": None}
    expected = {"url": "http://***@h/", "password": MASK, "list": [f"--token {MASK}", 1], "port": 5, "n": None}
    assert scrub_value(value) == expected == scrub_value(expected)


# Generated texts

_WORDS = [
    "step", "run", "https://host/a/b?page=1", "file.py:12", "error:", "failed,", "C:\\temp", "{'a':", "[1,", "2]}",
    "user@host", "x=1;", "50%", '"quoted"', "don't", "→", "é",
]  # fmt: skip
_CHARACTERS = string.ascii_letters + string.digits + "-_.~"


def _noise(chance: random.Random) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(12)))


def _hidden(chance: random.Random) -> tuple[str, str]:
    secret = "Zq7" + "".join(chance.choice(_CHARACTERS) for _ in range(chance.randrange(6, 40))) + "9"
    form = chance.choice([form for form in FORMS if "{{" not in form and "ghp_" not in form])
    return form.replace("{}", secret), secret


def test_generated_texts_keep_no_secret_and_are_settled_at_once(hostile: Hostile) -> None:
    for index in range(hostile.count):
        chance = hostile.random(index)
        parts, secrets = list[str](), list[str]()
        for _ in range(chance.randrange(1, 5)):
            text, secret = _hidden(chance)
            parts += [_noise(chance), text]
            secrets.append(secret)
        whole = chance.choice([" ", "\n", ' "', "\t"]).join(parts)
        shown = scrub(whole)
        assert not [secret for secret in secrets if secret in shown], (index, whole, shown)
        assert scrub(shown) == shown, (index, shown)


def test_generated_texts_without_secrets_are_unchanged(hostile: Hostile) -> None:
    for index in range(hostile.count):
        text = "\n".join(_noise(hostile.random(index * 1000 + line)) for line in range(5))
        assert scrub(text) == text, index


_PIECES = [
    "http://", "https://u:", "@", "://", "%3A%2F%2F", "eyJ", "eyJa.", "sig=", "password", "password=", "token: ", "&",
    "=", '"', "'", '\\"', "\\", "--token ", "--token '", "', '", "<password>", "-----BEGIN PRIVATE KEY-----",
    "-----END ", "Bearer ", "authorization: ", "AccountKey=", ";", ",", "\n", " ", "%26", "\\u0026",
    "login x password ", "A" * 64, "***",
]  # fmt: skip


def test_hostile_texts_are_settled_at_once(hostile: Hostile) -> None:
    for index in range(hostile.count):
        chance = hostile.random(index)
        text = "".join(chance.choice(_PIECES) for _ in range(chance.randrange(1, 60)))
        shown = scrub(text)
        assert scrub(shown) == shown, (index, text, shown, scrub(shown))


def _texts(length: int) -> Iterator[str]:
    for first in _PIECES:
        yield (first * (length // len(first) + 1))[:length]
    for first, second in zip(_PIECES, _PIECES[7:] + _PIECES[:7], strict=True):
        yield ((first + second) * (length // len(first + second) + 1))[:length]


def test_the_work_grows_with_the_length_and_not_with_its_square() -> None:
    def seconds(text: str) -> float:
        best = 9.0
        for _ in range(2):
            begun = time.process_time()
            scrub(text)
            best = min(best, time.process_time() - begun)
        return best

    # Four times the length is four times the work, and sixteen times where it is quadratic.
    slow = [
        (short[:40], before, after)
        for short, long in zip(_texts(4_000), _texts(16_000), strict=True)
        if (before := seconds(short)) * 10 + 0.01 < (after := seconds(long))
    ]
    assert not slow


def test_no_expression_repeats_a_repetition() -> None:
    for name, value in vars(redaction).items():
        if isinstance(value, re.Pattern):
            assert not re.search(r"[+*]\)[+*]", value.pattern), name

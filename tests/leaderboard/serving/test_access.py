"""Who may read a served board: nobody without the token or the proxy, and nothing tells the token."""

import io
import logging
import re
import urllib.parse

import pytest

from tutelage.leaderboard.serving.access import Access, Gate
from tutelage.leaderboard.serving.server import make_server
from tutelage.leaderboard.store import Store
from tutelage.records import InputError, Row

from .conftest import TOKEN

EVERY_PATH = ("/", "/index.html", "/version", "/rows.csv", "/absent", "/login", "/../etc/passwd", "//", "*")


def logged_in(served, token=TOKEN, **options):
    form = urllib.parse.urlencode({"token": token})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return served.ask("/login", "POST", headers, form, **options)


def test_a_network_is_not_served_without_a_token_or_a_proxy(tmp_path):
    Store(tmp_path / "leaderboard.db")
    for host in ("0.0.0.0", "::", "192.168.0.7", "127.0.0.2", ""):
        with pytest.raises(InputError, match=r"--token-file .*TUTELAGE_TOKEN.*--proxy-header"):
            make_server(tmp_path / "leaderboard.db", host=host)
    for token in ("short", "a b" * 10, "é" * 30, "x" * 201):
        with pytest.raises(InputError, match="make one by python") as refused:
            make_server(tmp_path / "leaderboard.db", host="0.0.0.0", access=Access(token))
        assert token not in str(refused.value)
    with pytest.raises(InputError, match="no header that only a proxy sets"):
        make_server(tmp_path / "leaderboard.db", host="0.0.0.0", access=Access(proxy_header="Cookie"))
    with pytest.raises(InputError, match="no address of this machine"):
        make_server(tmp_path / "leaderboard.db", host="203.0.113.7", access=Access(TOKEN))
    make_server(tmp_path / "leaderboard.db", host="0.0.0.0", access=Access(TOKEN)).server_close()


def test_nothing_is_read_without_the_token(serve):
    served = serve(access=Access(TOKEN))
    secrets = {row.model for row in served.store.rows()} | {"rows-5"}
    for path in EVERY_PATH:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": f"Basic {TOKEN}"}):
            status, _, text = served.ask(path, headers=headers, source=f"127.0.0.{len(path) + len(headers) + 3}")
            assert status == 401
            assert not any(secret in text for secret in secrets)
    assert served.ask(f"/version?token={TOKEN}")[0] == 401, "an address is kept in histories and logs"
    assert served.ask("/version", headers={"Authorization": f"Bearer {TOKEN}"})[2] == "rows-5"
    assert served.ask("/version", headers={"Authorization": f"bearer  {TOKEN} "})[2] == "rows-5"


def test_the_form_gives_a_cookie_that_scripts_cannot_read_and_that_says_nothing_of_the_token(serve):
    served = serve(access=Access(TOKEN))
    status, headers, form = served.ask("/")
    assert (status, headers["Content-Type"]) == (401, "text/html; charset=utf-8")
    assert "<script" not in form
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert logged_in(served, "wrong")[0] == 401
    status, headers, _ = logged_in(served)
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert served.ask("/version", headers={"Cookie": f"other=1; {pair}"})[2] == "rows-5"
    for wrong in (pair[:-1] + ("0" if pair[-1] != "0" else "1"), re.sub(r"=(\d)", r"=9\1", pair), "=".join((pair, ""))):
        assert served.ask("/version", headers={"Cookie": wrong})[0] == 401


def test_a_session_ends(monkeypatch):
    now = [1_800_000_000.0]
    gate = Gate(Access(TOKEN), clock=lambda: now[0])
    value = gate.session()
    assert gate._is_session(f"{gate.cookie}={value}")
    assert not Gate(Access(TOKEN), clock=lambda: now[0])._is_session(f"{gate.cookie}={value}"), "another server"
    now[0] += 12 * 3600 + 1
    assert not gate._is_session(f"{gate.cookie}={value}")
    assert not Gate(Access()).is_token(""), "no token is no token to give"


def test_the_token_stands_in_no_page_no_log_and_no_header(serve, caplog):
    caplog.set_level(logging.DEBUG)
    served = serve(access=Access(TOKEN))
    answers = [logged_in(served), logged_in(served, "wrong"), served.ask(f"/version?token={TOKEN}")]
    answers += [served.ask(path, headers={"Authorization": f"Bearer {TOKEN}"}) for path in EVERY_PATH]
    for _, headers, text in answers:
        assert TOKEN not in f"{headers}{text}"
    assert "/version" in caplog.text
    assert TOKEN not in caplog.text


def test_wrong_tokens_are_few_and_others_are_not_kept_out(serve, no_time_passes):
    served = serve(access=Access(TOKEN))
    answers = [logged_in(served, f"guess-{n}", source="127.0.0.9") for n in range(10)]
    assert [status for status, *_ in answers] == [401] * 6 + [429] * 4
    assert int(answers[-1][1]["Retry-After"]) >= 1
    asked = {"Authorization": f"Bearer {TOKEN}"}
    assert served.ask("/version", headers=asked, source="127.0.0.9")[0] == 429, "whoever guesses learns nothing more"
    assert logged_in(served, source="127.0.0.9")[0] == 429
    assert served.ask("/version", headers=asked, source="127.0.0.8")[0] == 200


def test_a_proxy_says_who_reads_and_nobody_else_may(serve):
    served = serve(access=Access(proxy_header="X-Remote-User", proxies=("127.0.0.5",)))
    named = {"X-Remote-User": "ada"}
    assert served.ask("/version", headers=named, source="127.0.0.5")[2] == "rows-5"
    assert served.ask("/version", headers=named, source="127.0.0.6")[0] == 401, "a client that names itself"
    assert served.ask("/version", source="127.0.0.5")[0] == 401
    assert served.ask("/version", headers={"X-Remote-User": " "}, source="127.0.0.5")[0] == 401
    assert logged_in(served)[0] == 501
    gate = Gate(Access(proxy_header="X-Remote-User"))
    import http.client

    twice = http.client.parse_headers(io.BytesIO(b"X-Remote-User: mallory\r\nX-Remote-User: ada\r\n\r\n"))
    assert gate.user(twice, "127.0.0.1") is None, "a proxy that adds its header leaves the client's"


@pytest.mark.slow
def test_what_users_name_is_text_on_the_served_page(serve, browser):
    evil = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    plain = {"role": "student", "split": "test"}
    texts = [
        name
        for name, field in Row.model_fields.items()
        if field.annotation is str and name not in (*plain, "measurement")
    ]
    details = {
        "how": {"recipe_name": evil, "command": evil, evil: evil},
        "per_class": {evil: {"auc": 0.9}},
        evil: [evil],
    }
    rows = [
        Row(
            **plain,
            **dict.fromkeys(texts, evil) | {"scheme": f"{evil}{n}"},
            auc=0.9,
            latency_p50_ms=1.0,
            details=details,
        )
        for n in range(2)
    ]
    assert {"model", "teacher", "dataset", "device", "recipe", "runtime"} <= set(texts)
    served = serve(rows, access=Access(TOKEN), title=evil)
    page = browser.new_context(viewport={"width": 1300, "height": 900}).new_page()
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.fill("#token", f"<script>{'x' * 30}")
    page.click("button")
    assert "That is not the token." in page.inner_text("[role=alert]")
    page.fill("#token", TOKEN)
    page.click("button")
    page.wait_for_selector("#table tbody tr")
    page.check("#all-groups")
    page.locator("#table tbody tr", has_text="onerror").first.locator("button").click()
    assert evil in page.inner_text("#compare")
    page.select_option("#view", "parallel")
    assert page.evaluate("document.cookie") == ""
    assert TOKEN not in page.content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert not dialogs
    page.context.close()

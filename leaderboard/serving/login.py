"""The form that asks for the token (`login_page`); it runs no script and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:18vh auto 0;padding:0 1rem}"
    "h1{font-size:1.25rem}label{display:block;margin-bottom:.25rem}"
    "input,button{font:inherit;padding:.5rem .75rem;box-sizing:border-box;width:100%;margin-bottom:.75rem}"
    "p[role=alert]{font-weight:600}"
)


def login_page(problem: str) -> str:
    """Give the form, with a sentence above it where the last token was not the right one."""
    said = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><h1>This leaderboard asks for a token</h1>'
        f'{said}<form method="post" action="/login"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        "<button>Open</button></form></body></html>"
    )


def login_policy() -> str:
    """Give the Content-Security-Policy of the form: its style, and a form that goes to this server alone."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )

"""Delivers events by HTTP, signed as Standard Webhooks specifies: https://www.standardwebhooks.com."""

import email.utils
import os
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from artifacts.errors import SubscriptionRefused
from artifacts.notify.message import Outcome, body, message_id
from artifacts.notify.outbox import Due
from artifacts.notify.subscription import check_scheme, host_of, is_secret_reference, read_reference

TIMEOUT_S = 10.0
"""Longest wait for the next byte from the receiver."""

GONE = 410
"""HTTP status of a receiver that wants no further attempts."""


def post_event(due: Due) -> Outcome:
    """Send the event in one POST; a redirect is a failure: it would send the signed message elsewhere."""
    target, secret = due.subscription.target, due.subscription.secret or ""
    try:
        url = check_scheme(read_reference(target, os.environ) if is_secret_reference(target) else target)
        signer = _signer(read_reference(secret, os.environ), secret)
    except SubscriptionRefused as exc:
        return Outcome(problem=str(exc))
    return _post(url, _headers(due, signer, datetime.now(UTC)), body(due.event))


def _post(url: str, headers: dict[str, str], content: str) -> Outcome:
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream("POST", url, content=content.encode(), headers=headers) as response,
        ):  # streamed, so that a long body of the response is never read
            return _answer(response, host_of(url))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:  # their texts may hold the address
        return Outcome(problem=f"{host_of(url)}: {type(exc).__name__}; check that this host can reach it")


def _headers(due: Due, signer: Webhook, at: datetime) -> dict[str, str]:
    event_id = message_id(due.event)
    return {
        "content-type": "application/json",
        "user-agent": "enginery",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signer.sign(event_id, at, body(due.event)),
    }


def _signer(secret: str, source: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, RuntimeError):  # no base64, or nothing in it
        raise SubscriptionRefused(
            f"{source} is not a webhook secret; make one with `enginery registry subscribe --new-secret FILE`"
        ) from None


def _answer(response: httpx.Response, host: str) -> Outcome:
    status = response.status_code
    if 200 <= status < 300:
        return Outcome()
    if status == GONE:
        return Outcome(problem=f"{host} answers 410: it wants no further attempts", forever=True)
    if 300 <= status < 400:
        return Outcome(problem=f"{host} answers {status}; redirects are not followed: give the final address")
    return Outcome(
        problem=f"{host} answers {status}", wait_s=_retry_after_s(response.headers.get("retry-after"))
    )


def _retry_after_s(text: str | None) -> float | None:
    """Seconds until the time in a Retry-After header, which is a number or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        # Cut: a number of thousands of digits would be infinite.
        return float(text.strip()[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())

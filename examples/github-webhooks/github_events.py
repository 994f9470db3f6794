"""What GitHub says happened -> who should hear of it, as Belfry's events. Knows neither HTTP nor Belfry's address.

Nobody hears of their own action, a program never hears of anything, and of one delivery a person hears once, with the
reason that concerns them most: the first in the list that a rule gives.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from belfry_client import Event
from mentions import mentioned

EXCERPT = 500  # characters of a comment that a notification shows
LONGEST_NAME = 120  # of an issue, so that a title stays within Belfry's 200 characters

CHANGES = {
    "answered": "answered",
    "closed": "closed",
    "ready_for_review": "asks for a review of",
    "reopened": "reopened",
    "transferred": "transferred",
}

Payload = dict[str, Any]


class Reason(NamedTuple):
    """Why some people hear of it."""

    logins: Iterable[str]
    type: str
    title: str
    priority: str = "normal"


class Thing(NamedTuple):
    """What it is about: one unread notification a person, however much happens to it."""

    key: str
    name: str
    url: str


def to_events(kind: str, payload: Payload, watchers: dict[str, list[str]]) -> list[Event]:
    """The events of one delivery. `kind` is its X-GitHub-Event; `watchers`: repository -> logins who follow it."""
    rule = RULES.get(kind)
    if rule is None or "repository" not in payload:
        return []
    sender = payload.get("sender") or {}
    told = {str(sender.get("login", "")).lower()}
    events = []
    about = _thing(kind, payload)
    for reason in rule(payload, _followers(payload["repository"], watchers), about):
        recipients = sorted({login.lower() for login in reason.logins if not login.endswith("[bot]")} - told)
        told.update(recipients)
        if recipients:
            events.append(
                Event(
                    recipients,
                    html.escape(reason.title, quote=False),  # Belfry reads titles as HTML, and this is text
                    reason.type,
                    body=_excerpt(payload),
                    url=about.url,
                    actor=_actor(sender),
                    priority=reason.priority,
                    group_key=about.key,
                )
            )
    return events


Rule = Callable[[Payload, list[str], Thing], Iterator[Reason]]


def comment(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    who = _login(payload.get("sender"))
    yield from _mentions(payload, payload.get("comment") or {}, about)
    if payload.get("action") == "created":
        involved = _involved(payload) or followers  # a commit's author is not in the payload
        yield Reason(involved, "comment", f"{who} commented on “{about.name}”")


def issue(payload: Payload, _followers: list[str], about: Thing) -> Iterator[Reason]:
    """Issues, pull requests and discussions."""
    who, action = _login(payload.get("sender")), payload.get("action")
    subject = _subject(payload)
    if action in ("opened", "created", "edited"):
        yield from _mentions(payload, subject, about)
    elif action == "assigned":
        yield Reason(_logins(payload.get("assignee")), "assignment", f"{who} assigned you to “{about.name}”")
    elif action == "review_requested":
        reviewer = _logins(payload.get("requested_reviewer"))
        yield Reason(reviewer, "review_request", f"{who} asked you to review “{about.name}”")
    elif action in CHANGES:
        done = "merged" if action == "closed" and subject.get("merged") else CHANGES[action]
        yield Reason(_involved(payload), "status_change", f"{who} {done} “{about.name}”")


def review(payload: Payload, _followers: list[str], about: Thing) -> Iterator[Reason]:
    who, content = _login(payload.get("sender")), payload.get("review") or {}
    if payload.get("action") == "dismissed":
        yield Reason(_logins(content.get("user")), "review", f"{who} dismissed your review of “{about.name}”")
        return
    yield from _mentions(payload, content, about)
    if payload.get("action") == "submitted":
        done = {"approved": "approved", "changes_requested": "asked for changes in"}.get(content["state"], "reviewed")
        yield Reason(_involved(payload), "review", f"{who} {done} “{about.name}”")


def status(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    authors = _logins((payload.get("commit") or {}).get("author"))  # the committer is often GitHub's own program
    yield from _outcome(payload.get("state"), str(payload.get("context")), authors, followers, about)


def check(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    """Check runs, check suites and workflow runs."""
    if payload.get("action") != "completed":
        return
    run = _run(payload)
    name = run.get("name") or (payload.get("workflow") or run.get("app") or {}).get("name") or "A check"
    authors = [*_logins(run.get("actor")), *_logins(run.get("triggering_actor"))]
    username = ((run.get("head_commit") or {}).get("author") or {}).get("username")
    authors += [username] if username else []
    yield from _outcome(run.get("conclusion"), str(name), authors, followers, about)


def deployment(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    state = (payload.get("deployment_status") or {}).get("state")
    creator = _logins((payload.get("deployment") or {}).get("creator"))
    if state == "success":
        yield Reason([*creator, *followers], "deployment", f"{about.name} is out")
    elif state in ("failure", "error"):
        yield Reason([*creator, *followers], "deployment", f"{about.name} failed", "high")


def release(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    # A release is created, published and released within a second; only one of these concerns its readers.
    if payload.get("action") == "published":
        yield from _mentions(payload, payload.get("release") or {}, about)
        yield Reason(followers, "release", f"{about.name} is released")


def alert(payload: Payload, followers: list[str], about: Thing) -> Iterator[Reason]:
    if payload.get("action") in ("created", "reopened"):
        yield Reason(followers, "alert", f"Security alert: {about.name}", "high")


RULES: dict[str, Rule] = {
    "commit_comment": comment,
    "discussion_comment": comment,
    "issue_comment": comment,
    "pull_request_review_comment": comment,
    "discussion": issue,
    "issues": issue,
    "pull_request": issue,
    "pull_request_review": review,
    "status": status,
    "check_run": check,
    "check_suite": check,
    "workflow_run": check,
    "deployment_status": deployment,
    "release": release,
    "code_scanning_alert": alert,
    "dependabot_alert": alert,
}


def _mentions(payload: Payload, said: Payload, about: Thing) -> Iterator[Reason]:
    """Those who are named in it; after an edit, those who were not named before."""
    if payload.get("action") == "deleted":
        return
    named = mentioned(said.get("body") or "")
    if payload.get("action") == "edited":
        changed = (payload.get("changes") or {}).get("body") or {"from": said.get("body")}
        named -= mentioned(changed.get("from") or "")
    yield Reason(named, "mention", f"{_login(payload.get('sender'))} mentioned you in “{about.name}”")


def _outcome(result: str | None, name: str, authors: list[str], followers: list[str], about: Thing) -> Iterator[Reason]:
    """Good news for whose commit it is; bad news for the followers too."""
    name = name[:60]
    if result == "success":
        yield Reason(authors, "status_change", f"{name} passed for {about.name}")
    elif result in ("failure", "error", "timed_out", "startup_failure", "action_required"):
        yield Reason([*authors, *followers], "status_change", f"{name} failed for {about.name}", "high")


def _involved(payload: Payload) -> list[str]:
    """Who opened it, who is to do it, who is to review it."""
    subject = _subject(payload)
    people = [subject.get("user"), *(subject.get("assignees") or []), *(subject.get("requested_reviewers") or [])]
    return [login for person in people for login in _logins(person)]


def _thing(kind: str, payload: Payload) -> Thing:
    repository = payload["repository"]
    place, url = repository["full_name"], repository["html_url"]
    subject = _subject(payload)
    if subject:
        said = payload.get("comment") or payload.get("review") or {}
        name = str(subject.get("title"))[:LONGEST_NAME]
        discussion = "discussion " if "discussion" in payload else ""
        return Thing(f"{place} {discussion}#{subject['number']}", name, said.get("html_url") or subject["html_url"])
    if kind == "release":
        found = payload["release"]
        tag = str(found["tag_name"])[:LONGEST_NAME]
        return Thing(f"{place} release {tag}"[:255], f"{repository['name']} {tag}", found["html_url"])
    if kind == "deployment_status":
        environment = str(payload["deployment"]["environment"])[:LONGEST_NAME]
        name = f"{repository['name']} on {environment}"
        return Thing(f"{place} deployment {environment}", name, f"{url}/deployments")
    if "alert" in payload:
        found = payload["alert"]
        about = found.get("security_advisory") or found.get("rule") or {}
        name = str(about.get("summary") or about.get("description"))[:LONGEST_NAME]
        return Thing(f"{place} {kind} {found['number']}", f"{name} ({repository['name']})", found["html_url"])
    sha = str(payload.get("sha") or (payload.get("comment") or {}).get("commit_id") or _run(payload).get("head_sha"))
    link = (payload.get("comment") or {}).get("html_url") or f"{url}/commit/{sha}"
    return Thing(f"{place} commit {sha}", f"{repository['name']} {sha[:7]}", link)


def _subject(payload: Payload) -> Payload:
    return payload.get("issue") or payload.get("pull_request") or payload.get("discussion") or {}


def _run(payload: Payload) -> Payload:
    return payload.get("workflow_run") or payload.get("check_suite") or payload.get("check_run") or {}


def _followers(repository: Payload, watchers: dict[str, list[str]]) -> list[str]:
    """Who follows the repository; its owner does, if that is a person."""
    name = repository["full_name"].lower()  # GitHub knows no case in it
    watching = [login for watched, logins in watchers.items() if watched.lower() == name for login in logins]
    return [*watching, *_logins(repository.get("owner"))]


def _logins(person: Payload | None) -> list[str]:
    """The login of a person, if it is one: deleted accounts are null, programs and firms are of another type."""
    return [person["login"]] if person and person.get("login") and person.get("type", "User") == "User" else []


def _login(person: Payload | None) -> str:
    return str((person or {}).get("login", "Somebody"))


def _actor(sender: Payload) -> dict[str, str | None] | None:
    if not sender.get("login"):
        return None
    return {"name": sender["login"], "url": sender.get("html_url"), "image": sender.get("avatar_url")}


def _excerpt(payload: Payload) -> str | None:
    said = payload.get("comment") or payload.get("review") or _subject(payload) or payload.get("release") or {}
    text = str(said.get("body") or "")
    shown = text[:EXCERPT] + ("…" if len(text) > EXCERPT else "")
    return html.escape(shown, quote=False) or None

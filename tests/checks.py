"""The checks that keep people out of what is not theirs: where each stands, and the tests that miss it.

tests/taken_out.py takes them out, one by one. Whoever adds a check adds a line here; of owners and sessions in SQL, and
of scopes, that script notices where one is missing.
"""

from typing import NamedTuple

OWNER = "users.id = :user_id"


class Check(NamedTuple):
    """A piece of a module, what stands there without the check, and which tests must fail then, one of them at least.

    `tests` are names of test files, each with the beginning of a test's name; `only` chooses among their parameters.
    """

    module: str
    text: str
    without: str
    tests: tuple[str, ...]
    only: str = ""


def _of(module: str, *checks: tuple[str, str, str]) -> list[Check]:
    found = []
    for text, without, tests in checks:
        names, _, only = tests.partition(" only ")
        found.append(Check(module, text, without, tuple(names.split()), only))
    return found


NOBODY_ELSE = "access::nobody_else_may only "

SESSIONS = [
    *_of(
        "people",
        ("users.id = :user_id AND users.is_active", "users.is_active", "belfry_user::a_call_meant_for_somebody_else"),
        ("users.is_active AND users.session", "users.session", NOBODY_ELSE + "same_epoch"),
        ("AND users.session_epoch = :session_epoch", "", NOBODY_ELSE + "epoch_raised"),
        ("AND now() < to_timestamp(:session_until)", "", NOBODY_ELSE + "over_its_hours"),
        (
            "AND NOT EXISTS (SELECT FROM ended_sessions WHERE session_id = :session_id)",
            "",
            NOBODY_ELSE + "replayed_after_sign_out",
        ),
        ("FROM ended_sessions WHERE session_id = :session_id)", "FROM ended_sessions)", "sign_in::signing_out_ends"),
        ("bool(matches and known", "bool(known", "sign_in::every_refusal"),
        (" and user.is_active)", ")", "sign_in::every_refusal"),
        ("WHERE id = :user_id AND is_active", "WHERE id = :user_id", "sign_in::nobody_who_is_disabled"),
        (
            "FROM users WHERE id = :user_id AND",
            "FROM users WHERE",
            "tickets::the_session_is_of",
        ),
        ("until) if found.is_active else None", "until)", "sign_in::nobody_who_is_disabled"),
        (
            "CAST(coalesce(:is_active, true) = false AND users.is_active AS integer)",
            "0",
            "people_api::disabling_ends",
        ),
        ("CAST(excluded.password_hash IS NOT NULL AS integer)", "0", "sign_in::a_new_password_ends"),
        ("session_epoch + CAST(NOT :active AS integer)", "session_epoch", "sign_in::disabling_works"),
        ("SET session_epoch = session_epoch + 1", "SET session_epoch = session_epoch", "sign_in::the_operator_ends"),
        ("connection.execute(END_SESSION, reader.claims)", "pass", "sign_in::signing_out_ends"),
        ("subject) FROM users WHERE {MAY_READ}", f"subject) FROM users WHERE {OWNER}", "tickets::the_name_of"),
        (
            "SELECT subject FROM users WHERE {MAY_READ}",
            f"SELECT subject FROM users WHERE {OWNER}",
            "belfry_user::a_session_that",
        ),
        ("FROM users WHERE {MAY_READ} FOR", f"FROM users WHERE {OWNER} FOR", NOBODY_ELSE + "disabled"),
    ),
    *_of(
        "inbox",
        ("{NOW} FROM users WHERE {MAY_READ}", f"{{NOW}} FROM users WHERE {OWNER}", "poll::a_tag_is_no_way_in"),
        ('{MAY_READ.replace(":", "claimed.")}', "users.id = claimed.user_id", "fast_path::what_a_lost_notice"),
        (
            "LEFT JOIN page ON true\n    WHERE {MAY_READ}",
            f"LEFT JOIN page ON true\n    WHERE {OWNER}",
            NOBODY_ELSE + "epoch_raised",
        ),
        (
            ") AS page ON true\n        WHERE {MAY_READ}",
            f") AS page ON true\n        WHERE {OWNER}",
            NOBODY_ELSE + "epoch_raised",
        ),
        ("WHERE {MAY_READ} ORDER BY met.type", f"WHERE {OWNER} ORDER BY met.type", "pages::the_page_takes_three"),
        (
            ") AS found ON true\n    WHERE {MAY_READ}",
            f") AS found ON true\n    WHERE {OWNER}",
            NOBODY_ELSE + "epoch_raised",
        ),
    ),
    *_of(
        "unread",
        ("CROSS JOIN totals WHERE {MAY_READ}", f"CROSS JOIN totals WHERE {OWNER}", "races::who_signs_out_while"),
    ),
    *_of(
        "preferences",
        ("WHERE {MAY_READ} ORDER BY met.type", f"WHERE {OWNER} ORDER BY met.type", NOBODY_ELSE + "epoch_raised"),
    ),
    *_of(
        "known",
        (
            "if at % SESSION.size:",
            "if len(self.sessions) < 1:",
            "fast_path::another_persons_session fast_path::a_session_that_was_never",
        ),
    ),
    *_of(
        "fastpath",
        ("if now >= found.good_until or", "if", "fast_path::what_is_known_is_good fast_path::a_session_is_over"),
        (
            "if session_id is None:",
            "if False:",
            "fast_path::another_persons_session fast_path::a_session_that_was_never",
        ),
    ),
    *_of(
        "auth",
        ("db.write(people.end_session, current_user.reader)", "pass", "sign_in::signing_out_ends"),
        (
            "    end_session()\n    login_user",
            "    login_user",
            "sign_in::signing_in_again_ends sign_in::nothing_of_a_cookie",
        ),
    ),
]

OWNERS = [
    *_of(
        "unread",
        ("WHERE n.user_id = :user_id AND {OPEN}", "WHERE {OPEN}", "poll::nobody_polls"),
    ),
    *_of(
        "inbox",
        ("WHERE n.user_id = :user_id AND n.id < :before AND", "WHERE n.id < :before AND", "list::nobody_lists"),
        (
            "WHERE n.user_id = :user_id AND now() < n.expires_at ORDER BY",
            "WHERE now() < n.expires_at ORDER BY",
            "pages::a_link_filters_by_type",
        ),
        ("WHERE n.user_id = :user_id AND n.id = :id AND", "WHERE n.id = :id AND", "find::an_id_names find::unknown"),
    ),
    *_of(
        "marking",
        (
            "AS other WHERE other.user_id = :user_id\n                    AND other",
            "AS other WHERE other",
            "mark_one::a_group_of_somebody_else",
        ),
        (
            "WHERE n.user_id = :user_id AND n.id = ANY(ARRAY(SELECT id FROM keyed))",
            "WHERE n.id = ANY(ARRAY(SELECT id FROM keyed))",
            "mark_one::a_mark_reaches",
        ),
        (
            "WHERE id = :user_id AND EXISTS (SELECT FROM changed)",
            "WHERE EXISTS (SELECT FROM changed)",
            "mark_one::a_mark_reaches",
        ),
        (
            "WHERE n.user_id = :user_id AND {which}",
            "WHERE {which}",
            "mark_one::a_mark_leaves mark_many::ids_of_others",
        ),
        (
            "WHERE undos.user_id = :user_id AND undos.version = :undo",
            "WHERE undos.version = :undo",
            "undo::two_whose undo::the_number_of_one",
        ),
        (
            "WHERE n.user_id = :user_id AND n.id = ANY(ARRAY(SELECT id FROM undone))",
            "WHERE n.id = ANY(ARRAY(SELECT id FROM undone))",
            "undo::two_whose undo::the_number_of_one",
        ),
        (
            "was = '{}' WHERE user_id = :user_id AND version = :undo",
            "was = '{}' WHERE version = :undo",
            "undo::two_whose undo::the_number_of_one",
        ),
        ("WHERE n.user_id = :user_id AND n.id = :id AND now()", "WHERE n.id = :id AND now()", "mark_one::unknown"),
        (
            "SELECT verb FROM undos WHERE user_id = :user_id AND",
            "SELECT verb FROM undos WHERE",
            "undo::unknown undo::the_number_of_one",
        ),
    ),
    *_of(
        "preferences",
        (
            "WHERE n.user_id = :user_id AND now()",
            "WHERE now()",
            "preferences::a_type_that_was_never_met preferences::everybody_mutes",
        ),
        (
            "SELECT type FROM preferences WHERE user_id = :user_id\n",
            "SELECT type FROM preferences\n",
            "preferences::what_somebody_else preferences::everybody_mutes",
        ),
        (
            "preferences.user_id = users.id AND preferences.type",
            "preferences.type",
            "preferences::what_somebody_else preferences::everybody_mutes",
        ),
        (
            "WHERE user_id = :user_id AND type = :type)",
            "WHERE type = :type)",
            "preferences::what_somebody_else preferences::everybody_mutes",
        ),
    ),
    *_of(
        "publishing",
        (
            "WHERE user_id = users.id AND type = :type AND muted",
            "WHERE type = :type AND muted",
            "preferences::what_somebody_else preferences::everybody_mutes",
        ),
    ),
    *_of(
        "personal_data",
        *[
            (
                f"DELETE FROM {table} WHERE {column} = :user_id",
                f"DELETE FROM {table} WHERE :user_id > 0",
                "people_api::erasing_and_exporting",
            )
            for table, column in [
                ("notifications", "user_id"),
                ("undos", "user_id"),
                ("tickets", "user_id"),
                ("preferences", "user_id"),
                ("events", "only_user_id"),
                ("users", "id"),
            ]
        ],
        *[
            (
                before + "user_id = :user_id" + after,
                before.removesuffix("only_").removesuffix("n.") + ":user_id > 0" + after,
                "people_api::erasing_and_exporting",
            )
            for before, after in [
                ("n.event_id WHERE n.", " ORDER BY n.id"),
                ("muted FROM preferences WHERE ", ""),
                ("used_at FROM tickets WHERE ", ""),
                ("at FROM undos WHERE ", ""),
                ("WHERE only_", " AND NOT EXISTS"),
            ]
        ],
    ),
    *_of(
        "idempotency",
        (
            "body FROM idempotency_keys WHERE api_key_id = :api_key_id AND",
            "body FROM idempotency_keys WHERE",
            "idempotency::the_keys_of_two",
        ),
        (
            'WHERE api_key_id = :api_key_id AND key = :key\n""")\n\n\ndef keep',
            'WHERE key = :key\n""")\n\n\ndef keep',
            "idempotency::the_keys_of_two",
        ),
        ("WHERE api_key_id = :api_key_id AND key = ANY(:keys)", "WHERE key = ANY(:keys)", "send::a_key_of_a_sender"),
    ),
    *_of(
        "events",
        (
            "WHERE events.id = :id AND events.api_key_id = :key_id",
            "WHERE events.id = :id",
            "publish_api::another_senders",
        ),
    ),
    *_of("retracting", ("WHERE id = :id AND api_key_id = :key_id", "WHERE id = :id", "publish_api::another_senders")),
    *_of(
        "tickets",
        ("WHERE subject = :subject AND is_active", "WHERE subject = :subject", "tickets::nobody_who_is_disabled"),
        ("ON users.id = tickets.user_id AND users.is_active", "ON users.id = tickets.user_id", "tickets::used_expired"),
        (
            'WHERE digest = :digest AND used_at IS NULL AND now() < expires_at\n""")\n\n\ndef find',
            'WHERE digest = :digest AND now() < expires_at\n""")\n\n\ndef find',
            "tickets::used_expired",
        ),
        (
            "        AND digest = :digest AND used_at IS NULL AND",
            "        AND digest = :digest AND",
            "tickets::of_ten_who",
        ),
        (
            "WHERE users.id = tickets.user_id AND users.is_active\n",
            "WHERE users.id = tickets.user_id\n",
            "tickets::an_enabled",
        ),
        (
            'if f"{parts.scheme}://{parts.netloc}".lower() not in origins:',
            "if False:",
            "tickets::a_ticket_leads_nowhere",
        ),
    ),
    *_of(
        "pages",
        (
            "    if form.reader != reader.user_id:\n        return _not_for_you(reader)\n    if form.id",
            "    if form.id",
            "pages::a_page_drawn",
        ),
        (
            "    if form.reader != reader.user_id:\n        return _not_for_you(reader)\n    found",
            "    found",
            "pages::a_page_drawn",
        ),
    ),
    *_of("types_page", ("if form.reader == reader.user_id:", "if True:", "types_page::a_page_drawn")),
    *_of(
        "auth",
        (
            "if meant is not None and unquote(meant)",
            "if meant is None and unquote(meant or '')",
            "belfry_user::a_call_meant_for_somebody_else",
        ),
    ),
    *_of(
        "fastpath",
        ('            and "HTTP_BELFRY_USER" not in environ\n', "", "belfry_user::a_call_meant_for_somebody_else"),
    ),
    *_of(
        "fastpath",
        (
            '            and "HTTP_AUTHORIZATION" not in environ\n',
            "",
            "tokens::a_token_beside",
        ),
    ),
    *_of(
        "polling",
        (
            "(match[1], match[2], match[5]) == mine",
            "(match[2], match[5]) == mine[1:]",
            "poll::another_epoch poll::304_needs",
        ),
    ),
    *_of(
        "polling",
        ("(match[1], match[2], match[5]) == mine", "(match[1], match[5]) == mine[::2]", "poll::a_tag_of_alices"),
    ),
    *_of(
        "polling", ("(match[1], match[2], match[5]) == mine", "(match[1], match[2]) == mine[:2]", "poll::another_limit")
    ),
    *_of("fastpath", (" or parts[0] != self.beginning", "", "fast_path::a_tag_of_another_epoch")),
]

KEYS = [
    *_of(
        "keys",
        ("AND revoked_at IS NULL", "", "keys::revoking_ends"),
        (" AND (expires_at IS NULL OR now() < expires_at)", "", "keys::an_expired_key"),
        (
            "if not hmac.compare_digest(_digest(secret), digest) or not found:",
            "if not found:",
            "keys::an_unknown_prefix",
        ),
    ),
    *_of(
        "auth",
        ("if scope not in found.scopes:", "if False:", "keys::each_call_needs"),
        ("algorithms=[chosen.jwt_algorithms]", 'algorithms=["HS256", "HS384", "HS512"]', "tokens::another_digest"),
        ("audience=chosen.jwt_audience", "options_={}", "tokens::audience"),
        ("issuer=chosen.jwt_issuer", "issuer=None", "tokens::audience"),
        (
            '"require": ["exp", "sub"]',
            '"require": ["exp", "sub"], "verify_exp": False',
            "tokens::a_token_that_is_over",
        ),
        ('"require": ["exp", "sub"]', '"require": ["exp", "sub"], "verify_aud": False', "tokens::audience"),
        (
            '"require": ["exp", "sub"]',
            '"require": ["exp", "sub"], "verify_signature": False',
            "tokens::what_is_no_good",
        ),
        ('"require": ["exp", "sub"]', '"require": ["sub"]', "tokens::a_token_needs"),
    ),
]

SITES = [
    *_of(
        "guard",
        ("        if not passes:", "        if False:", "cross_site::changes_from_other"),
        ('site in ("same-origin", "none")', "True", "cross_site::changes_from_other"),
        ("origin is None or _host_of(origin) == request.host", "True", "cross_site::without_fetch"),
        ("app.before_request(guard.refuse_cross_site)", "pass", "cross_site::changes_from_other"),
        (
            'if request.blueprint in READERS and request.headers.get("Origin") in self.cors_origins:',
            "if request.blueprint in READERS:",
            "cross_site::a_preflight_of_another",
        ),
        ("        if origin in self.cors_origins:", "        if origin:", "cross_site::no_other_page"),
        ("count = settings.trusted_proxies", "count = settings.trusted_proxies + 1", "sign_in_limits::behind_one"),
    ),
    *_of(
        "fastpath",
        (
            "            and self._is_our_host(environ)\n",
            "",
            "fast_path::another_host",
        ),
    ),
]

MACHINES = [
    *_of(
        "ops",
        ("    if not _may_look(settings.current()):", "    if False:", "metrics::only_who_is_allowed"),
        (
            'if "Forwarded" in request.headers:',
            "if False:",
            "metrics::only_who_is_allowed",
        ),
        ("for address in [peer, *named])", "for address in [peer])", "metrics::only_who_is_allowed"),
        ("for address in [peer, *named])", "for address in named)", "metrics::only_who_is_allowed"),
        (
            'request.environ.get("werkzeug.proxy_fix.orig", request.environ)',
            "request.environ",
            "metrics::only_who_is_allowed",
        ),
        ("return any(parsed in", "return bool(chosen) or any(parsed in", "metrics::only_who_is_allowed"),
    ),
    *_of("mirror", ("    if not is_signed(", "    if False and not is_signed(", "way_in::strangers_learn")),
    *_of(
        "checkup_way_in",
        (
            "return abs(time.time() - float(_serializer(secret_key).loads(given))) < GOOD_FOR",
            "return bool(_serializer(secret_key).loads(given))",
            "way_in::strangers_learn",
        ),
        (
            "float(_serializer(secret_key).loads(given))",
            "float(_serializer(secret_key).loads_unsafe(given)[1])",
            "way_in::strangers_learn",
        ),
    ),
]

ROUTES = "route_limits::each_route_stops"
LIMITS = [
    *_of(
        "limits",
        ("default_limits=[CALLS],", "", ROUTES + " only preferences"),
        ("bulk(app.view_functions[endpoint]))", "app.view_functions[endpoint])", "route_limits::the_verbs"),
        ("senders(cast(flask.Blueprint, app.blueprints[name]))", "name", "keys::calls_of_one_address"),
        (
            "    _require_no_wait(polls.count(user_id))",
            "    polls.count(user_id)",
            "shared_limits::polls_by_the_slow_way",
        ),
        ("    _require_no_wait(polls.wait(user_id, session))", "", "poll::who_replays"),
        ("        polls.count(session)\n        raise", "        raise", "poll::who_replays"),
        ("part.amount // workers", "part.amount", "poll::each_of_n"),
        ('("address", SIGN_INS_PER_ADDRESS, f"address/{network(address)}"),', "", "sign_in_limits::an_address_has"),
        ('("account", SIGN_INS_PER_ACCOUNT, _account_key(account)),', "", "sign_in_limits::an_account_has"),
        (
            "ip_network((parsed, 64), strict=False)",
            "ip_network((parsed, 128), strict=False)",
            "sign_in_limits::an_ipv6",
        ),
        ("if not limiter.hit(CALLS_PER_KEY,", "if False and not limiter.hit(CALLS_PER_KEY,", "keys::a_call_over"),
        (
            "if not ONE_HASH.acquire(timeout=HASH_PATIENCE * random.uniform(0.5, 1.5)):",
            "if False:",
            "sign_in_limits::a_crowd",
        ),
    ),
    *_of(
        "auth",
        (
            '        limits.count_sign_in(subject, flask.request.remote_addr or "")\n',
            "",
            "sign_in_limits::an_account_has",
        ),
        ("    with limits.one_hash():\n        limits", "    if True:\n        limits", "sign_in_limits::a_crowd"),
        ("    limits.count_call(found.key_id)\n", "", "keys::a_call_over"),
    ),
    *_of("inbox_api", ("with limits.one_poll(reader.user_id, reader.counted_as):", "if True:", "poll::100_polls")),
    *_of(
        "fastpath",
        ("caller and not self.polls.count(*caller)", "caller", "fast_path::polls_that_are_answered_from_memory_stop"),
        (
            "return None if self.polls.count(reader.user_id) else answer",
            "return answer",
            "fast_path::both_ways_count poll::100_polls",
        ),
        (" or self.polls.wait(reader.user_id, reader.counted_as)", "", "fast_path::refused_polls"),
    ),
    *_of(
        "poll_counter",
        ("FULL if is_over else self", "self", "shared_limits::two_workers_allow"),
        ("length, 1 + told)", "length, 1)", "shared_limits::what_was_given"),
        ("return (amount // workers or 1) - rest", "return 0", "shared_limits::what_redis_last_said"),
    ),
    *_of(
        "shared_counters",
        (
            "return amount - (others * (kept // self.workers) if self._is_settled() or not others else kept)",
            "return amount",
            "shared_limits::there_is_room",
        ),
        ("socket_timeout=patience", "socket_timeout=3", "shared_limits::redis_hung_costs"),
    ),
    *_of("counters", ("amount * self._parts(key))", "amount)", "shared_limits::the_store_of")),
]

CHECKS = [*SESSIONS, *OWNERS, *KEYS, *SITES, *MACHINES, *LIMITS]

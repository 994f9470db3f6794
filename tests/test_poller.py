"""static/js/poller.js, alone, in a real browser: its clock, its timers and its `fetch` are ours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

STATIC = Path(__file__).parents[1] / "static" / "js"

# stage() gives a poller and its surroundings. Time passes only in clock.pass(seconds); a request is answered by
# server.reply, after server.latency seconds, or when the test says so where the reply is 'later'.
STAGE = """
import { Poller } from '/poller.js';

const settle = () => new Promise((done) => setTimeout(done));

class Clock {
  time = Date.UTC(2030, 0, 1);
  timers = new Map();
  last = 0;
  now = () => this.time;
  setTimer = (callback, wait) => (this.timers.set(++this.last, { callback, at: this.time + wait }), this.last);
  clearTimer = (timer) => { this.timers.delete(timer); };

  async pass(seconds) {
    const until = this.time + seconds * 1000;
    for (;;) {
      await settle();
      const due = [...this.timers].filter(([, timer]) => timer.at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [id, { callback, at }] = due;
      this.timers.delete(id);
      this.time = Math.max(this.time, at);
      callback();
    }
    this.time = until;
    await settle();
  }
}

class Server {
  requests = [];
  inFlight = 0;
  most = 0;
  latency = 0;
  reply = () => ({ status: 304 });

  constructor(clock) {
    this.clock = clock;
    this.began = clock.time;
  }

  get times() { return this.requests.map(({ at }) => at); }
  get tags() { return this.requests.map(({ tag }) => tag); }

  fetch = (url, { headers, signal, cache, credentials }) => new Promise((resolve, reject) => {
    this.most = Math.max(this.most, ++this.inFlight);
    let over = false;
    const end = (how) => { if (!over) { over = true; this.inFlight -= 1; how(); } };
    const answer = ({ status, headers = {}, body }) => end(() => resolve({
      status, headers: new Headers(headers), json: () => (body instanceof Promise ? body : Promise.resolve(body)),
    }));
    const request = {
      url, cache, signal, answer, at: (this.clock.time - this.began) / 1000, tag: headers.get('If-None-Match'),
      authorization: headers.get('Authorization'), credentials,
    };
    this.requests.push(request);
    const reply = this.reply(request, this.requests.length);
    if (reply === 'later') return;
    signal.addEventListener('abort', () => end(() => reject(signal.reason)));
    if (reply === 'never') return;
    const send = () => (reply === 'broken' ? end(() => reject(new TypeError('Failed to fetch'))) : answer(reply));
    if (this.latency) this.clock.setTimer(send, this.latency * 1000);
    else send();
  });
}

export const list = (version, etag = `"v${version}"`) => ({
  status: 200, headers: { ETag: etag }, body: { user: 'ada', notifications: [], unread_count: 0, version, more: false },
});

export function stage({ etag, interval, random = 0.5, onSnapshot, onState, fetch } = {}) {
  const clock = new Clock();
  const server = new Server(clock);
  const heard = { versions: [], states: [] };
  const news = [];
  const poller = new Poller({
    url: '/notifications/unread',
    etag,
    interval,
    fetch: fetch?.(server) ?? server.fetch,
    now: clock.now,
    setTimer: clock.setTimer,
    clearTimer: clock.clearTimer,
    random: () => random,
    onNews: (one) => news.push(one),
    onSnapshot: (snapshot) => { heard.versions.push(snapshot.version); onSnapshot?.(snapshot, poller); },
    onState: (state, freshAt) => {
      heard.states.push([state, freshAt === null ? null : (freshAt - server.began) / 1000]);
      onState?.(state, poller);
    },
  });
  return { clock, server, heard, poller, news };
}
"""

Play = Callable[[str], Any]


@pytest.fixture(scope="module")
def play(chromium: Browser) -> Iterator[Play]:
    """Runs a scene, the body of an async function, and gives back what it returns."""

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix("http://poller.test")
        if path == "/":
            route.fulfill(content_type="text/html", body="<!doctype html><title>poller</title>")
        elif path == "/stage.js":
            route.fulfill(content_type="text/javascript", body=STAGE)
        elif path in ("/poller.js", "/token.js"):
            route.fulfill(content_type="text/javascript", body=(STATIC / path[1:]).read_text())
        else:
            route.abort()

    page = chromium.new_page()
    page.route("**/*", serve)
    page.goto("http://poller.test/")
    yield lambda scene: page.evaluate(f"async () => {{ const {{ stage, list }} = await import('/stage.js'); {scene} }}")
    page.close()


# The rhythm


def test_it_polls_at_once(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = () => list(7);
        poller.start();
        await clock.pass(0);
        const [{ at, tag, url, cache }] = server.requests;
        return { at, tag, url, cache, versions: heard.versions };
    """) == {"at": 0, "tag": None, "url": "/notifications/unread", "cache": "no-store", "versions": [7]}


def test_the_tag_of_a_list_that_came_with_the_page_goes_with_the_first_poll(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage({ etag: '"from the page"' });
        poller.start();
        await clock.pass(0);
        return [server.tags, heard.versions, heard.states];
    """) == [['"from the page"'], [], [["fresh", 0]]]


def test_the_interval_counts_from_the_start_of_the_last_poll(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        server.latency = 4;
        poller.start();
        await clock.pass(95);
        return server.times;
    """) == [0, 30, 60, 90]


def test_a_poll_slower_than_the_interval_is_followed_at_once_and_never_doubled(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ interval: 5000 });
        server.latency = 8;
        poller.start();
        await clock.pass(25);
        return [server.times, server.most];
    """) == [[0, 8, 16, 24], 1]


def test_no_timer_for_the_next_poll_runs_during_a_poll(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        server.reply = () => 'later';
        poller.start();
        await clock.pass(5);
        const timeOutOnly = clock.timers.size;
        server.requests[0].answer({ status: 304 });
        await clock.pass(0);
        return [timeOutOnly, [...clock.timers.values()].map(({ at }) => (at - server.began) / 1000)];
    """) == [1, [30]]


@pytest.mark.parametrize(("random", "times"), [(0, [0, 27, 54]), (0.5, [0, 30, 60]), (0.9999999, [0, 33, 66])])
def test_the_rhythm_varies_by_a_tenth(play: Play, random: float, times: list[float]) -> None:
    assert (
        play(f"""
        const {{ clock, server, poller }} = stage({{ random: {random} }});
        poller.start();
        await clock.pass(70);
        return server.times.map(Math.round);
    """)
        == times
    )


@pytest.mark.parametrize("status", [200, 304])
@pytest.mark.parametrize("seconds", [5, 120])
def test_the_server_sets_the_interval_up_and_down(play: Play, status: int, seconds: int) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        server.reply = () => ({{ ...list(1), status: {status}, headers: {{ 'X-Poll-Interval': '{seconds}' }} }});
        poller.start();
        await clock.pass({seconds} * 2 + 1);
        return server.times;
    """) == [0, seconds, 2 * seconds]


@pytest.mark.parametrize("nonsense", ["0", "-5", "soon", "NaN", ""])
def test_an_interval_that_makes_no_sense_changes_nothing(play: Play, nonsense: str) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        server.reply = () => ({{ status: 304, headers: {{ 'X-Poll-Interval': '{nonsense}' }} }});
        poller.start();
        await clock.pass(61);
        return server.times;
    """) == [0, 30, 60]


@pytest.mark.parametrize(("seconds", "second_poll"), [("0.001", 1), ("1e12", 86_400), ("Infinity", 86_400)])
def test_no_interval_makes_it_rush_or_sleep_for_ever(play: Play, seconds: str, second_poll: int) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        server.reply = () => ({{ status: 304, headers: {{ 'X-Poll-Interval': '{seconds}' }} }});
        poller.start();
        await clock.pass({second_poll} - 0.5);
        const before = server.requests.length;
        await clock.pass(0.6);
        return [before, server.times[1]];
    """) == [1, second_poll]


def test_a_clock_that_is_set_back_does_not_stop_the_polling(play: Play) -> None:
    assert (
        play("""
        const { clock, server, poller } = stage();
        server.reply = () => 'later';
        poller.start();
        clock.time -= 3600_000;
        server.requests[0].answer({ status: 304 });
        await clock.pass(31);
        return server.requests.length;
    """)
        == 2
    )


# Only what is new


def test_the_last_tag_goes_with_every_poll(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = ({ tag }, number) => (number < 3 ? list(number) : { status: 304 });
        poller.start();
        await clock.pass(100);
        return [server.tags, heard.versions];
    """) == [[None, '"v1"', '"v2"', '"v2"'], [1, 2]]


def test_an_answer_that_is_no_list_is_trouble_and_changes_nothing(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage({ etag: '"v1"' });
        server.reply = () => ({ ...list(2), body: { message: 'Please sign in to the company network' } });
        poller.start();
        await clock.pass(16);
        return [server.tags, heard];
    """) == [['"v1"', '"v1"'], {"versions": [], "states": [["stale", 0]]}]


# Trouble


@pytest.mark.parametrize("trouble", ["'broken'", "{ status: 500 }", "{ status: 404 }", "{ status: 429 }"])
def test_it_backs_off_up_to_five_minutes_and_recovers(play: Play, trouble: str) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage({{ random: 0.9999999 }});
        server.reply = (request, number) => (number <= 7 ? {trouble} : {{ status: 304 }});
        poller.start();
        await clock.pass(1500);
        const times = server.times.map(Math.round);
        return times.slice(1).map((time, index) => time - times[index]).slice(0, 8);
    """) == [30, 60, 120, 240, 300, 300, 300, 33]


def test_the_back_off_has_full_jitter(play: Play) -> None:
    waits = [
        play(f"""
            const {{ clock, server, poller }} = stage({{ random: {random} }});
            server.reply = () => 'broken';
            poller.start();
            await clock.pass(31);
            return server.times[1];
        """)
        for random in (0, 0.25, 0.5)
    ]
    assert waits == [1, 7.5, 15]


def test_a_success_forgets_the_failures(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ random: 0.5 });
        server.reply = (request, number) => (number === 3 ? { status: 304 } : 'broken');
        poller.start();
        await clock.pass(100);
        return server.times;
    """) == [0, 15, 45, 75, 90]


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_takes_longer_than_ten_seconds_is_given_up(play: Play, part: str) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller }} = stage();
        server.reply = ({{ signal }}) => ('{part}' === 'headers' ? 'never' : {{
          ...list(1), body: new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        }});
        poller.start();
        await clock.pass(9.9);
        const before = [server.requests[0].signal.aborted, [...heard.states]];
        await clock.pass(0.2);
        return [...before, server.requests[0].signal.aborted, heard.states, heard.versions];
    """) == [False, [], True, [["stale", None]], []]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "headers",
    [
        "{ 'Retry-After': '200' }",
        "{ 'Retry-After': new Date(clock.now() + 200_000).toUTCString() }",
        # A browser whose clock is wrong by hours still waits for the right time.
        "{ 'Retry-After': 'Sun, 06 Nov 1994 08:52:57 GMT', Date: 'Sun, 06 Nov 1994 08:49:37 GMT' }",
    ],
    ids=["seconds", "date", "date and another clock"],
)
def test_retry_after_is_obeyed_on_429_and_503(play: Play, status: int, headers: str) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage({{ random: 0 }});
        server.reply = () => ({{ status: {status}, headers: {headers} }});
        poller.start();
        await clock.pass(201);
        return server.times;
    """) == [0, 200]


@pytest.mark.parametrize("status", [200, 304, 500, 502, 404])
def test_retry_after_means_nothing_on_any_other_status(play: Play, status: int) -> None:
    times = play(f"""
        const {{ clock, server, poller }} = stage();
        server.reply = () => ({{ ...list(1), status: {status}, headers: {{ 'Retry-After': '200' }} }});
        poller.start();
        await clock.pass(31);
        return server.times;
    """)
    assert times == ([0, 30] if status in (200, 304) else [0, 15])


@pytest.mark.parametrize("value", ["0", "tomorrow", "Sun, 06 Nov 1994 08:49:37 GMT", "-3"])
def test_a_retry_after_without_a_wait_does_not_switch_the_back_off_off(play: Play, value: str) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        server.reply = () => ({{ status: 503, headers: {{ 'Retry-After': '{value}' }} }});
        poller.start();
        await clock.pass(50);
        return server.times;
    """) == [0, 15, 45]


def test_a_short_retry_after_does_not_shorten_the_back_off(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        server.reply = () => ({ status: 503, headers: { 'Retry-After': '20' } });
        poller.start();
        await clock.pass(120);
        return server.times;
    """) == [0, 21, 51, 111]


def test_pages_that_were_told_the_same_retry_after_do_not_come_back_together(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ random: 0.5 });
        server.reply = () => ({ status: 503, headers: { 'Retry-After': '200' } });
        poller.start();
        await clock.pass(211);
        return server.times;
    """) == [0, 210]


def test_it_stops_when_nobody_is_signed_in_and_says_so(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage({ etag: '"v1"' });
        server.reply = (request, number) => ({ status: number === 1 ? 304 : 401 });
        poller.start();
        await clock.pass(36_000);
        poller.pollNow();
        await clock.pass(36_000);
        return [server.times, clock.timers.size, heard.states];
    """) == [[0, 30], 0, [["fresh", 0], ["signed out", 0]]]


def test_it_can_be_started_again_after_a_sign_in(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = (request, number) => (number === 1 ? { status: 401 } : list(5));
        poller.start();
        await clock.pass(60);
        poller.start();
        await clock.pass(1);
        return [server.times, heard.states.map(([state]) => state)];
    """) == [[0, 60], ["signed out", "fresh"]]


def test_what_it_says_of_itself_changes_only_when_it_changes(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = (request, number) => (number === 3 || number === 4 ? 'broken' : { status: 304 });
        poller.start();
        await clock.pass(200);
        return heard.states;
    """) == [["fresh", 0], ["stale", 30], ["fresh", 105]]


def test_a_listener_that_fails_does_not_stop_the_polling(play: Play) -> None:
    assert play("""
        const reported = [];
        addEventListener('error', (event) => { reported.push(event.message); event.preventDefault(); }, { once: true });
        const { clock, server, heard, poller } = stage({ onSnapshot: () => { throw new Error('a broken listener'); } });
        server.reply = () => list(1);
        poller.start();
        await clock.pass(31);
        return [server.times, heard.states, reported];
    """) == [[0, 30], [["fresh", 0]], ["Uncaught Error: a broken listener"]]


# What the reader does


def test_poll_now_asks_for_the_whole_list_at_once(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ etag: '"v1"' });
        poller.start();
        await clock.pass(10);
        server.reply = () => list(2);
        poller.pollNow();
        await clock.pass(31);
        return [server.times, server.tags];
    """) == [[0, 10, 40], ['"v1"', None, '"v2"']]


def test_until_one_has_succeeded_no_poll_carries_a_tag_again(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ etag: '"v1"' });
        poller.start();
        await clock.pass(10);
        server.reply = (request, number) => (number === 2 ? 'broken' : list(2));
        poller.pollNow();
        await clock.pass(50);
        return server.tags;
    """) == ['"v1"', None, None, '"v2"']


def test_poll_now_replaces_the_poll_under_way(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = (request, number) => (number === 1 ? 'never' : list(number));
        poller.start();
        await clock.pass(3);
        poller.pollNow();
        await clock.pass(20);
        return [server.times, server.most, server.requests[0].signal.aborted, heard.versions, heard.states];
    """) == [[0, 3], 1, True, [2], [["fresh", 3]]]


def test_poll_now_does_not_press_a_server_that_asked_for_patience(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ random: 0 });
        server.reply = () => ({ status: 429, headers: { 'Retry-After': '60' } });
        poller.start();
        await clock.pass(5);
        poller.pollNow();
        await clock.pass(5);
        poller.stop();
        poller.start();
        await clock.pass(51);
        return [server.times, server.tags];
    """) == [[0, 60], [None, None]]


def test_whoever_asks_is_told_how_it_went_even_if_it_went_as_before(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = () => 'broken';
        poller.start();
        await clock.pass(3);
        poller.pollNow();
        await clock.pass(1);
        return heard.states.map(([state]) => state);
    """) == ["stale", "stale"]


def test_a_late_answer_never_overwrites_a_newer_local_action(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = () => 'later';  // answers even if it was given up: the worst that a browser could do
        poller.start();
        const [early] = server.requests;
        const action = poller.act(async () => { early.answer(list(1)); await clock.pass(1); return 'marked'; });
        const result = await action;
        early.answer(list(1));
        await clock.pass(0);
        const before = [...heard.versions];
        server.requests[1].answer(list(2));
        await clock.pass(0);
        return [result, before, heard.versions, server.times, server.tags];
    """) == ["marked", [], [2], [0, 1], [None, None]]


def test_no_poll_begins_during_a_local_action_and_one_follows_the_last(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ etag: '"v1"' });
        poller.start();
        await clock.pass(25);
        const ends = [];
        const first = poller.act(() => new Promise((done) => ends.push(done)));
        const second = poller.act(() => new Promise((done) => ends.push(done)));
        await clock.pass(10);
        poller.pollNow();
        ends[0]();
        await first;
        await clock.pass(5);
        const during = server.times.length;
        ends[1]();
        await second;
        await clock.pass(0);
        return [during, server.times, server.tags];
    """) == [1, [0, 40], ['"v1"', None]]


def test_a_local_action_that_fails_says_so_and_is_followed_by_a_poll_too(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ etag: '"v1"' });
        poller.start();
        await clock.pass(2);
        const message = await poller.act(async () => { throw new Error('403'); }).catch((error) => error.message);
        await clock.pass(0);
        return [message, server.times, server.tags];
    """) == ["403", [0, 2], ['"v1"', None]]


# Being looked at


@pytest.mark.parametrize("event", ["poller.wake()", "poller.hide(true); poller.hide(false)"])
@pytest.mark.parametrize(("age", "times"), [(4.9, [0]), (5, [0, 5])])
def test_looked_at_again_it_asks_at_once_unless_it_has_just_asked(
    play: Play, event: str, age: float, times: list[float]
) -> None:
    assert (
        play(f"""
        const {{ clock, server, poller }} = stage();
        poller.start();
        await clock.pass({age});
        {event};
        await clock.pass(0);
        return server.times;
    """)
        == times
    )


def test_looked_at_again_it_keeps_its_rhythm_and_its_tag(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ etag: '"v1"' });
        poller.start();
        await clock.pass(2);
        poller.wake();
        await clock.pass(20);
        poller.wake();
        await clock.pass(40);
        return [server.times, server.tags];
    """) == [[0, 22, 52], ['"v1"'] * 3]


def test_waking_presses_no_server_that_asked_for_patience_and_doubles_no_poll(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ random: 0 });
        server.latency = 8;
        server.reply = () => ({ status: 429, headers: { 'Retry-After': '60' } });
        poller.start();
        await clock.pass(6);
        poller.wake();
        await clock.pass(20);
        poller.wake();
        await clock.pass(50);
        return [server.times, server.most];
    """) == [[0, 68], 1]


def test_waking_cuts_a_back_off_short_but_never_below_five_seconds(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ random: 0.9 });
        server.reply = () => 'broken';
        poller.start();
        await clock.pass(2);
        poller.wake();
        await clock.pass(4);
        poller.wake();
        await clock.pass(10);
        poller.wake();
        await clock.pass(0);
        return server.times;
    """) == [0, 5, 10, 16]


def test_a_hidden_page_slows_down_to_five_minutes(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        poller.start();
        await clock.pass(1);
        poller.hide(true);
        await clock.pass(700);
        return server.times;
    """) == [0, 300, 600]


def test_a_hidden_page_does_not_speed_a_slower_server_up(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage({ interval: 900_000 });
        poller.hide(true);
        poller.start();
        await clock.pass(1000);
        return server.times;
    """) == [0, 900]


# One for many


NEWS = "{ ...list(7).body, version: 7 }"


def heard_news(more: str = "") -> str:
    return f"""{{ startedAt: clock.now(), state: 'stale', snapshot: {NEWS}, etag: '"v7"', interval: 30000,
        failures: 0, notBefore: 0, due: clock.now() + 30000, freshAt: clock.now(), {more} }}"""


def test_a_follower_does_not_poll_and_takes_the_news(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller }} = stage();
        poller.start();
        await clock.pass(1);
        poller.lead(false);
        await clock.pass(100);
        poller.hear({heard_news()});
        poller.hear({heard_news()});
        await clock.pass(100);
        return [server.times, heard.versions];
    """) == [[0], [7]]


def test_a_follower_that_comes_to_lead_asks_with_the_tag_it_heard_of(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        poller.lead(false);
        poller.start();
        poller.lead(true);
        await clock.pass(1);
        poller.lead(false);
        poller.hear({heard_news()});
        await clock.pass(20);
        poller.lead(true);
        await clock.pass(31);
        return [server.times, server.tags];
    """) == [[0, 21, 51], [None, '"v7"', '"v7"']]


def test_a_hidden_follower_that_comes_to_lead_asks_within_one_interval_and_then_rarely(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, poller }} = stage();
        poller.start();
        await clock.pass(1);
        poller.hide(true);
        poller.lead(false);
        await clock.pass(1);
        poller.hear({heard_news()});
        poller.lead(true);
        await clock.pass(400);
        return server.times;
    """) == [0, 32, 332]


def test_a_follower_that_comes_to_lead_goes_on_with_the_back_off(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller }} = stage({{ random: 0 }});
        poller.start();
        await clock.pass(1);
        poller.lead(false);
        poller.hear({heard_news("failures: 3, notBefore: clock.now() + 60000, due: clock.now() + 60000")});
        poller.lead(true);
        await clock.pass(100);
        return [server.times.slice(0, 2), heard.states.map(([state]) => state).slice(0, 2)];
    """) == [[0, 61], ["fresh", "stale"]]


def test_what_a_poll_teaches_is_told_with_all_that_another_page_needs(play: Play) -> None:
    assert play("""
        const { clock, server, poller, news } = stage();
        server.reply = (request, number) => (number === 1 ? list(3) : number === 2 ? { status: 304 } : 'broken');
        poller.start();
        await clock.pass(61);
        return news.map(({ startedAt, snapshot, etag, failures, due, freshAt }) => [
            startedAt - server.began, snapshot.version, etag, failures, due - server.began, freshAt - server.began]);
    """) == [
        [0, 3, '"v3"', 0, 30_000, 0],
        [30_000, 3, '"v3"', 0, 60_000, 30_000],
        [60_000, 3, '"v3"', 1, 75_000, 30_000],
    ]


def test_older_news_than_a_local_action_are_not_believed(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller }} = stage();
        poller.start();
        await clock.pass(1);
        poller.lead(false);
        const early = {heard_news()};
        server.reply = () => list(8);
        await clock.pass(1);
        const action = poller.act(async () => {{ poller.hear(early); await clock.pass(1); }});
        await action;
        poller.hear(early);
        await clock.pass(0);
        poller.hear(early);
        return [heard.versions, server.times];
    """) == [[8], [0, 3]]


def test_a_change_in_another_page_is_looked_for_if_that_page_does_not_tell(play: Play) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller }} = stage({{ etag: '"v1"' }});
        poller.start();
        await clock.pass(10);
        poller.expectChange();
        await clock.pass(5);
        poller.expectChange();
        poller.hear({heard_news()});
        await clock.pass(10);
        return [server.times, server.tags, heard.versions];
    """) == [[0, 12], ['"v1"', None], [7]]


def test_an_answer_on_its_way_while_another_page_changes_something_is_not_believed(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = (request, number) => (number === 1 ? 'later' : list(2));
        poller.start();
        poller.expectChange();
        server.requests[0].answer(list(1));
        await clock.pass(3);
        return [heard.versions, server.times];
    """) == [[2], [0, 2]]


# Tokens

TOKENS = """
    const { fetchWithToken } = await import('/token.js');
    const asked = [];
    const token = async () => { asked.push(1); return `token-${asked.length}`; };
    const fetch = (server) => fetchWithToken({ token, fetch: server.fetch });
    const { clock, server, heard, poller } = stage({ fetch });
"""


def test_a_401_asks_once_for_a_new_token(play: Play) -> None:
    assert play(f"""{TOKENS}
        server.reply = ({{ authorization }}) => ({{ status: authorization === 'Bearer token-1' ? 401 : 304 }});
        poller.start();
        await clock.pass(31);
        return [server.requests.map(({{ authorization, credentials }}) => [authorization, credentials]), asked.length];
    """) == [[["Bearer token-1", "omit"], ["Bearer token-2", "omit"], ["Bearer token-2", "omit"]], 2]


def test_a_new_token_that_is_refused_too_ends_the_polling(play: Play) -> None:
    assert play(f"""{TOKENS}
        server.reply = () => ({{ status: 401 }});
        poller.start();
        await clock.pass(3600);
        return [server.requests.length, asked.length, heard.states.map(([state]) => state)];
    """) == [2, 2, ["signed out"]]


def test_a_host_that_never_gives_a_token_holds_nothing_up(play: Play) -> None:
    assert play("""
        const { fetchWithToken } = await import('/token.js');
        const token = () => new Promise(() => {});
        const fetch = (server) => fetchWithToken({ token, fetch: server.fetch });
        const { clock, server, heard, poller } = stage({ fetch });
        poller.start();
        await clock.pass(11);
        poller.stop();
        return [heard.states.map(([state]) => state), server.requests.length, clock.timers.size];
    """) == [["stale"], 0, 0]


# Stopping


def test_stop_undoes_everything(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage();
        server.reply = () => 'later';
        poller.start();
        const [request] = server.requests;
        await clock.pass(1);
        poller.stop();
        const left = clock.timers.size;
        request.answer(list(1));
        await clock.pass(36_000);
        return [request.signal.aborted, left, clock.timers.size, server.requests.length, heard];
    """) == [True, 0, 0, 1, {"versions": [], "states": []}]


def test_stop_between_two_polls_leaves_no_timer(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        poller.start();
        await clock.pass(1);
        poller.stop();
        await poller.act(async () => {});
        await clock.pass(36_000);
        return [clock.timers.size, server.requests.length];
    """) == [0, 1]


def test_a_listener_may_stop_it(play: Play) -> None:
    assert play("""
        const { clock, server, heard, poller } = stage({ onSnapshot: (snapshot, poller) => poller.stop() });
        server.reply = () => list(1);
        poller.start();
        await clock.pass(36_000);
        return [clock.timers.size, server.requests.length, heard.states];
    """) == [0, 1, []]


def test_stopped_and_started_within_five_seconds_it_does_not_ask_again(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        poller.start();
        await clock.pass(2);
        poller.stop();
        poller.start();
        await clock.pass(29);
        return server.times;
    """) == [0, 30]


def test_starting_twice_polls_once(play: Play) -> None:
    assert play("""
        const { clock, server, poller } = stage();
        poller.start();
        poller.start();
        await clock.pass(31);
        return server.times;
    """) == [0, 30]


@pytest.mark.parametrize("status", [404, 410])
def test_where_there_is_no_service_it_says_so_and_tries_again(play: Play, status: int) -> None:
    assert play(f"""
        const {{ clock, server, heard, poller, news }} = stage();
        server.reply = (request, number) => (number === 1 ? {{ status: {status} }} : list(3));
        poller.start();
        await clock.pass(400);
        return [heard.states.map(([state]) => state), news[0].state, heard.versions[0]];
    """) == [["gone", "fresh"], "gone", 3]


def test_a_follower_hears_that_the_service_is_gone(play: Play) -> None:
    assert play(f"""
        const {{ clock, heard, poller }} = stage();
        poller.start();
        await clock.pass(1);
        poller.lead(false);
        poller.hear({heard_news("state: 'gone', failures: 1, due: clock.now() + 60000")});
        return heard.states.map(([state]) => state);
    """) == ["fresh", "gone"]


def test_where_pictures_may_come_from_is_told_with_the_list(play: Play) -> None:
    assert play("""
        const { clock, server, poller, news } = stage();
        const headers = { ETag: '"v3"', 'X-Image-Origins': 'https://a https://b' };
        server.reply = () => ({ ...list(3), headers });
        poller.start();
        await clock.pass(0);
        return news[0].snapshot.imageOrigins;
    """) == ["https://a", "https://b"]

-- wrk's script: arguments are a file with a line "cookie TAB tag" for each user, the User-Agent, the
-- expected status, and for a pace the milliseconds between two polls of a connection.

local polls = {}
local last = 0
local expected
wrong = 0

local all_threads = {}

function setup(thread)
  table.insert(all_threads, thread)
end

function init(arguments)
  expected = tonumber(arguments[3])
  local rest = tonumber(arguments[4])
  if rest then
    -- As many strangers come: the time to the next one says nothing of the one before.
    function delay()
      return -math.log(1 - math.random()) * rest
    end
  end
  for line in io.lines(arguments[1]) do
    local cookie, tag = line:match("^([^\t]*)\t(.*)$")
    local headers = { ["Cookie"] = cookie, ["User-Agent"] = arguments[2] }
    if tag ~= "" then
      headers["If-None-Match"] = tag
    end
    table.insert(polls, wrk.format("GET", nil, headers))
  end
end

function request()
  last = last % #polls + 1
  return polls[last]
end

function response(status)
  if status ~= expected then
    wrong = wrong + 1
  end
end

function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, thread in ipairs(all_threads) do
    failed = failed + thread:get("wrong")
  end
  local form = '{"requests": %d, "rate": %.1f, "p50": %.2f, "p99": %.2f, "failed": %d}\n'
  io.write(string.format(form, summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end

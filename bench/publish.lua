-- wrk's script: arguments are a file with an API key in each line, and how many users there are. Each request publishes
-- one event to one of them, by another key and from another address: a limit is counted, and never reached.

local keys = {}
local number = 0
local users
wrong = 0

local all_threads = {}

function setup(thread)
  table.insert(all_threads, thread)
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    table.insert(keys, line)
  end
  users = tonumber(arguments[2])
end

function request()
  number = number + 1
  local who = number * 7919 % users + 1
  local headers = {
    ["Authorization"] = "Bearer " .. keys[number % #keys + 1],
    ["Content-Type"] = "application/json",
    ["X-Forwarded-For"] = string.format("10.%d.%d.%d", number % 200, math.floor(number / 200) % 200, who % 200),
  }
  local form = '{"type":"comment","title":"Grace Hopper commented on Issue %d","body":"Looks <b>good</b> to me.",' ..
    '"url":"https://app.example/issues/%d","actor":{"name":"Grace Hopper"},"data":{"issue":%d},"recipients":["user-%d"]}'
  return wrk.format("POST", "/api/v1/events", headers, string.format(form, number, number, number, who))
end

function response(status)
  if status ~= 201 then
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

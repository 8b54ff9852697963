-- For wrk: every answer has to be the page that is named after `--`. At the end one line of JSON.
wrong = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  page = file:read("*a")
  file:close()
end

function request()
  return wrk.format("GET", "/page")
end

function response(status, headers, body)
  if status ~= 200 or body ~= page then wrong = wrong + 1 end
end

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function done(summary, latency, requests)
  local wrong, e = 0, summary.errors
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
  io.write(string.format('{"requests":%d,"wrong":%d,"errors":%d,"longest_ms":%.1f}\n',
    summary.requests, wrong + e.status, e.connect + e.read + e.write + e.timeout,
    latency.max / 1000))
end

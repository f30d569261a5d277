-- Sends requests that were rendered before the clock runs, in random order, and prints the figures
-- as one line of JSON, which is easier to read for a program than what wrk prints.
-- Arguments: the method, and a file that has a path (GET) or a body for /anomalies (POST) a line.

local requests = {}

function init(args)
  local method, file = args[1], args[2]
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(file) do
    if method == "GET" then
      requests[#requests + 1] = wrk.format("GET", line)
    else
      requests[#requests + 1] = wrk.format("POST", "/anomalies", headers, line)
    end
  end
  -- The same order each time.
  math.randomseed(7)
end

function request()
  return requests[math.random(#requests)]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%.3f,"p99_us":%.3f,"refused":%d,"broken":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

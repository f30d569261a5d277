-- Sends requests that are rendered before the clock starts, in random order, and prints the figures
-- as one line of JSON, which is easier for a program to read than wrk's own report. Arguments: the
-- method, and a file with a path (GET) or a body for /anomalies (POST) on each line. In a body, @ID
-- stands for an id that is new in each request, and @TIME for the current time.

local requests = {}
local sent, second, time = 0, 0, ""

-- Placeholders. The wide ones are as long as their values, so that the length of the request stays
-- the same.
local ID, TIME = "@ID", "@TIME"
local WIDE_ID, WIDE_TIME = string.rep("@", 20), string.rep("#", 27)

local function widened(body)
  return (body:gsub(ID, WIDE_ID):gsub(TIME, WIDE_TIME))
end

-- Returns a request with an id and the time in place of its placeholders, if it has any.
local function stamped(request)
  local first, last = request:find(WIDE_ID, 1, true)
  if not first then
    return request
  end
  sent = sent + 1
  local now = os.time()
  if now ~= second then
    second, time = now, os.date("!%Y-%m-%dT%H:%M:%S", now)
  end
  local from, to = request:find(WIDE_TIME, last, true)
  return request:sub(1, first - 1) .. string.format("%011d-%08d", now, sent)
    .. request:sub(last + 1, from - 1) .. string.format("%s.%06dZ", time, sent % 1000000)
    .. request:sub(to + 1)
end

function init(args)
  local method, file = args[1], args[2]
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(file) do
    if method == "GET" then
      requests[#requests + 1] = wrk.format("GET", line)
    else
      requests[#requests + 1] = wrk.format("POST", "/anomalies", headers, widened(line))
    end
  end
  -- A fixed seed, so that the order is the same in each run.
  math.randomseed(7)
end

function request()
  return stamped(requests[math.random(#requests)])
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%.3f,"p99_us":%.3f,"refused":%d,"broken":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

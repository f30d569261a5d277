-- Counts the events of one anomaly since given times, and reads its audit.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit
-- ARGV     1  the times in rising order, with spaces between (Unix seconds)
-- Returns  {"known", first_seen, "<count>,<count>,…" of the timeline, `folded`, the number of
--          rolled-up events in the buckets before the first time, {running totals from there on:
--          number, score, number, score, …}, {audit, newest first}}, where '' stands for a missing
--          value; {"unknown"}; or {"error" and a message}
--
-- A script and not single commands: all figures of an answer are from the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 10, 1, 0

-- Up to this length, reading all scores of a timeline costs less than a ZCOUNT for each time. (In
-- the encoding of short timelines, a ZCOUNT reads all of them.)
local MAX_READ = 512

-- Counts the events of the timeline since each of the times.
local function counts_since(times)
  local timeline, counts = KEYS[1], {}
  if call('ZCARD', timeline) > MAX_READ then
    for i, time in ipairs(times) do
      counts[i] = call('ZCOUNT', timeline, time, '+inf')
    end
    return counts
  end
  local events = call('ZRANGEBYSCORE', timeline, times[1], '+inf', 'WITHSCORES')
  local newer, position = 0, #events
  for i = #times, 1, -1 do
    local time = tonumber(times[i])
    while position > 0 and tonumber(events[position]) >= time do
      newer, position = newer + 1, position - 2
    end
    counts[i] = newer
  end
  return counts
end

local function read()
  if not is_known(1) then
    return { 'unknown' }
  end
  local times = {}
  for time in string.gmatch(ARGV[1], '%S+') do
    times[#times + 1] = time
  end
  local counts = table.concat(counts_since(times), ',')
  local first_seen = read_if_readable('HGET', KEYS[1 + METADATA], 'first_seen') or ''
  local folded, before, totals = read_texts(1, KEYS_EACH)[3] or '', 0, {}
  if folded ~= '' then
    before = rolled_up_before(1, times[1])
    totals = call('ZRANGEBYSCORE', KEYS[1 + FOLDED_COUNTS], times[1], '+inf', 'WITHSCORES')
  end
  local entries = call('LRANGE', KEYS[1 + AUDIT], '0', '-1')
  return { 'known', first_seen, counts, folded, tostring(before), totals, entries }
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return protected_list(read)
end)

-- Adds repair attempts to the histories of known anomalies, one after the other.
--
-- KEYS  for each attempt: timeline, repair_count, permanent_fix, metadata, repair_history,
--       operation_ids
-- ARGV  1  seconds to keep an anomaly
--       2  now (Unix seconds)
--       then for each attempt: event id, the attempt as JSON
-- Gives for each attempt: {'counted' or 'duplicate', number of attempts, {repair history}},
--       or {'unknown'} or {'error', message}
--
-- A script and not MULTI: whether the anomaly is known and the id is new decides about the writes.

local kept_seconds, now = ARGV[1], ARGV[2]

local function add(names, id, attempt)
  if not is_known(names) then
    return { 'unknown' }
  end
  local outcome = 'duplicate'
  if is_first(names, id, now, kept_seconds) then
    outcome = 'counted'
    redis.call('INCR', names.repair_count)
    redis.call('LPUSH', names.repair_history, attempt)
    redis.call('LTRIM', names.repair_history, 0, 99)
    redis.call('EXPIRE', names.repair_count, kept_seconds)
    redis.call('EXPIRE', names.repair_history, kept_seconds)
    keep(names.metadata, kept_seconds)
  end
  local history = redis.call('LRANGE', names.repair_history, 0, 99)
  return { outcome, redis.call('GET', names.repair_count) or '', history }
end

local results = {}
local key_cursor, argument_cursor = { at = 1 }, { at = 3 }
for i = 1, #KEYS / 6 do
  local names = {}
  names.timeline, names.repair_count, names.permanent_fix, names.metadata, names.repair_history,
    names.operation_ids = take(KEYS, key_cursor, 6)
  results[i] = guarded(add, names, take(ARGV, argument_cursor, 2))
end
return results

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
  -- Read before anything is written, so that a history of a foreign type changes nothing.
  redis.call('LLEN', names.repair_history)
  local outcome = 'duplicate'
  if not is_noted(names, id, now, kept_seconds) then
    outcome = 'counted'
    redis.call('INCR', names.repair_count)
    redis.call('EXPIRE', names.repair_count, kept_seconds)
    redis.call('LPUSH', names.repair_history, attempt)
    redis.call('LTRIM', names.repair_history, 0, 99)
    redis.call('EXPIRE', names.repair_history, kept_seconds)
    keep(names.metadata, kept_seconds)
    note(names, id, now, kept_seconds)
  end
  local history = redis.call('LRANGE', names.repair_history, 0, 99)
  return { outcome, redis.call('GET', names.repair_count) or '', history }
end

local results = {}
for i = 1, elements(6, 2, 2) do
  results[i] = guarded(add, names_of(i, 6), unpack(ARGV, i * 2 + 1, i * 2 + 2))
end
return results

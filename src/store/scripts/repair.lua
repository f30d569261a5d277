-- Adds repair attempts to the histories of known anomalies, one after the other.
--
-- KEYS  for each attempt: timeline, repair_count, permanent_fix, metadata, folded, folded_counts,
--       folded_ids, repair_history, operation_ids, audit
-- ARGV  1  seconds to keep an anomaly
--       2  now (Unix seconds)
--       then for each attempt: event id, the attempt as JSON, its entry of the audit as JSON
-- Gives for each attempt: {'counted' or 'duplicate', number of attempts, {repair history}},
--       or {'unknown'}, or {"error" and a message}
--
-- A script and not MULTI: whether the anomaly is known and the id is new decides about the writes.

local kept_seconds, now = ARGV[1], ARGV[2]

local function add(k, id, attempt, entry)
  if not is_known(k) then
    return { 'unknown' }
  end
  local repair_count, repair_history = KEYS[k + REPAIR_COUNT], KEYS[k + REPAIR_HISTORY]
  -- Read before anything is written, so that a history of a foreign type changes nothing.
  call('LLEN', repair_history)
  call('LLEN', KEYS[k + AUDIT])
  local outcome = 'duplicate'
  if not is_noted(k, id, now, kept_seconds) then
    outcome = 'counted'
    call('INCR', repair_count)
    call('EXPIRE', repair_count, kept_seconds)
    call('LPUSH', repair_history, attempt)
    call('LTRIM', repair_history, '0', '99')
    call('EXPIRE', repair_history, kept_seconds)
    extend_ttl(KEYS[k + METADATA], kept_seconds)
    audit(k, entry)
    remember_id(k, id, now, kept_seconds)
  end
  return { outcome, call('GET', repair_count) or '', call('LRANGE', repair_history, '0', '99') }
end

local results = {}
for i = 1, elements(10, 2, 3) do
  local result = protected(add, i * 10 - 9, ARGV[i * 3], ARGV[i * 3 + 1], ARGV[i * 3 + 2])
  results[i] = type(result) == 'table' and result or { result }
end
return results

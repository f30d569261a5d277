-- Adds repair attempts to the histories of known anomalies, in order.
--
-- KEYS     for each attempt: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history, operation_ids, audit
-- ARGV     1  seconds to keep an anomaly and an id
--          2  the time from which ids are kept (Unix seconds)
--          3  now (Unix seconds)
--          4  maximum number of attempts in a history
--          5  maximum number of ids of operations
--          6  maximum number of entries in an audit
--          7  seconds to keep an audit
--          then for each attempt: event id, the attempt (JSON), its entry in the audit (JSON)
-- Returns  for each attempt: {"counted" or "duplicate", number of attempts, {repair history, newest
--          first}}, {"unknown"}, or {"error" and a message}
--
-- A script and not MULTI: the writes depend on whether the anomaly is known and the id is new.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 10, 7, 3

local kept_seconds, kept_from, now = ARGV[1], ARGV[2], ARGV[3]
local newest_attempts = ARGV[4] - 1
local max_ids, audit_entries, audit_seconds = ARGV[5], ARGV[6], ARGV[7]

-- Adds an attempt. If a command fails, because the user may not run it, what was done before is
-- undone: the attempt is sent again, and must not count twice.
local function write(k, id, attempt, entry)
  local repair_count, repair_history = KEYS[k + REPAIR_COUNT], KEYS[k + REPAIR_HISTORY]
  -- First what has no effect, or can be repeated.
  call('EXPIRE', repair_count, kept_seconds)
  call('EXPIRE', repair_history, kept_seconds)
  call('LTRIM', repair_history, '0', newest_attempts - 1)
  extend_ttl(KEYS[k + METADATA], kept_seconds)
  remember_id(k, id, now, kept_from, kept_seconds, max_ids)
  local is_in_history, is_in_audit
  local ok, raised = pcall(function()
    call('LPUSH', repair_history, attempt)
    is_in_history = true
    audit(k, entry, audit_entries, audit_seconds)
    is_in_audit = true
    call('INCR', repair_count)
  end)
  if not ok then
    redis.pcall('ZREM', KEYS[k + OPERATION_IDS], id)
    if is_in_history then
      redis.pcall('LTRIM', repair_history, '1', '-1')
    end
    if is_in_audit then
      redis.pcall('LTRIM', KEYS[k + AUDIT], '1', '-1')
    end
    error(raised, 0)
  end
  call('EXPIRE', repair_count, kept_seconds)
  call('EXPIRE', repair_history, kept_seconds)
end

local function add(k, id, attempt, entry)
  if not is_known(k) then
    return { 'unknown' }
  end
  local repair_count, repair_history = KEYS[k + REPAIR_COUNT], KEYS[k + REPAIR_HISTORY]
  -- Called before anything is written, so that lists of a foreign type fail without a change.
  call('LLEN', repair_history)
  call('LLEN', KEYS[k + AUDIT])
  local outcome = 'duplicate'
  if not is_remembered(k, id, kept_from, kept_seconds) then
    outcome = 'counted'
    check_memory_of_ids(k, now)
    write(k, id, attempt, entry)
  end
  return { outcome, call('GET', repair_count) or '',
    call('LRANGE', repair_history, '0', newest_attempts) }
end

return run(function()
  local results = {}
  for i = 1, elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH) do
    local k, a = (i - 1) * KEYS_EACH + 1, FIXED_ARGUMENTS + (i - 1) * ARGUMENTS_EACH
    results[i] = protected_list(add, k, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3])
  end
  return results
end)

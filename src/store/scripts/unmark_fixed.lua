-- Takes the permanent fix of a known anomaly back.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history, operation_ids
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
-- Gives {'unmarked'}, {'not_marked'} (also where this id was known and nothing has changed),
--       {'unknown'} or {'error', message}
--
-- A script and not MULTI: an unknown anomaly is told from one that has no mark.

local kept_seconds, now, id = unpack(ARGV)

local function unmark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  if is_noted(names, id, now, kept_seconds) then
    return { 'not_marked' }
  end
  local mark = redis.call('GET', names.permanent_fix)
  redis.call('DEL', names.permanent_fix)
  redis.call('HDEL', names.metadata, 'permanent_fix_applied', 'permanent_fix_description',
    'permanent_fix_time', 'permanent_fix_by')
  note(names, id, now, kept_seconds)
  return { mark == '1' and 'unmarked' or 'not_marked' }
end

elements(6, 3, 0)
return guarded(unmark, names_of(1, 6))

-- Takes the permanent fix of a known anomaly back.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history, operation_ids
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
--       4  the removal's time (Unix seconds)
-- Gives {'unmarked'}, {'not_marked'} (also where nothing has changed since this id was known or
--       something later has been done), {'unknown'} or {'error', message}
--
-- A script and not MULTI: an unknown anomaly is told from one that has no mark.

local kept_seconds, now, id, at = unpack(ARGV)

local function unmark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  if is_noted(names, id, now, kept_seconds) then
    return { 'not_marked' }
  end
  if is_outdated(names, at, now) then
    note(names, id, now, kept_seconds)
    return { 'not_marked' }
  end
  local mark = redis.call('GET', names.permanent_fix)
  redis.call('DEL', names.permanent_fix)
  redis.call('HDEL', names.metadata, 'permanent_fix_applied', 'permanent_fix_description',
    'permanent_fix_time', 'permanent_fix_by')
  if redis.call('EXISTS', names.metadata) == 1 then
    redis.call('HSET', names.metadata, 'permanent_fix_changed', at)
  end
  note(names, id, now, kept_seconds)
  return { mark == '1' and 'unmarked' or 'not_marked' }
end

elements(6, 4, 0)
return guarded(unmark, names_of(1, 6))

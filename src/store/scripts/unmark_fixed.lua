-- Takes the permanent fix of a known anomaly back.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history
-- ARGV  none
-- Gives {'unmarked'}, {'not_marked'}, {'unknown'} or {'error', message}
--
-- A script and not MULTI: an unknown anomaly is told from one that has no mark.

local function unmark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  local mark = redis.call('GET', names.permanent_fix)
  redis.call('DEL', names.permanent_fix)
  redis.call('HDEL', names.metadata, 'permanent_fix_applied', 'permanent_fix_description',
    'permanent_fix_time', 'permanent_fix_by')
  return { mark == '1' and 'unmarked' or 'not_marked' }
end

local names = {}
names.timeline, names.repair_count, names.permanent_fix, names.metadata, names.repair_history =
  unpack(KEYS)
return guarded(unmark, names)

-- Marks a known anomaly as permanently fixed, in place of an earlier mark.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history
-- ARGV  1  seconds that the mark holds
--       2  the mark's time (ISO 8601)
--       3  what was done
--       4  who says so; '' for nobody
-- Gives {'marked'} or {'unknown'} or {'error', message}
--
-- A script and not MULTI: a mark on an unknown anomaly is refused, and the metadata must not
-- expire before it.

local validity_seconds, marked_at, description, fixed_by = unpack(ARGV)

local function mark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  redis.call('HSET', names.metadata, 'permanent_fix_applied', 'true', 'permanent_fix_description',
    description, 'permanent_fix_time', marked_at)
  if fixed_by == '' then
    redis.call('HDEL', names.metadata, 'permanent_fix_by')
  else
    redis.call('HSET', names.metadata, 'permanent_fix_by', fixed_by)
  end
  keep(names.metadata, validity_seconds)
  redis.call('SET', names.permanent_fix, '1', 'EX', validity_seconds)
  return { 'marked' }
end

local names = {}
names.timeline, names.repair_count, names.permanent_fix, names.metadata, names.repair_history =
  unpack(KEYS)
return guarded(mark, names)

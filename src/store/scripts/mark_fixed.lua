-- Marks a known anomaly as permanently fixed, in place of an earlier mark.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history, operation_ids
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
--       4  seconds that the mark holds from now on
--       5  the mark's time (ISO 8601)
--       6  what was done
--       7  who says so; '' for nobody
-- Gives {'marked'}, also where this id was known and nothing has changed; or {'unknown'} or {'error', message}
--
-- A script and not MULTI: a mark on an unknown anomaly is refused, and the metadata must not
-- expire before it.

local kept_seconds, now, id, validity_seconds, marked_at, description, fixed_by = unpack(ARGV)

local function mark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  if is_noted(names, id, now, kept_seconds) then
    return { 'marked' }
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
  note(names, id, now, kept_seconds)
  return { 'marked' }
end

elements(6, 7, 0)
return guarded(mark, names_of(1, 6))

-- Marks a known anomaly as permanently fixed, in place of an earlier mark.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history, operation_ids
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
--       4  the mark's time (Unix seconds)
--       5  the same (ISO 8601)
--       6  seconds that the mark holds from now on
--       7  what was done
--       8  who says so; '' for nobody
-- Gives {'marked'}, also where nothing has changed since this id was known or something later has been
--       done; or {'unknown'} or {'error', message}
--
-- A script and not MULTI: a mark on an unknown anomaly is refused, and the metadata must not
-- expire before it.

local kept_seconds, now, id, at, at_iso, validity_seconds, description, fixed_by = unpack(ARGV)

local function mark(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  if is_noted(names, id, now, kept_seconds) then
    return { 'marked' }
  end
  if is_outdated(names, at, now) then
    note(names, id, now, kept_seconds)
    return { 'marked' }
  end
  redis.call('HSET', names.metadata, 'permanent_fix_applied', 'true', 'permanent_fix_description',
    description, 'permanent_fix_time', at_iso, 'permanent_fix_changed', at)
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

elements(6, 8, 0)
return guarded(mark, names_of(1, 6))

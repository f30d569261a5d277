-- Marks a known anomaly as permanently fixed, in place of an earlier mark.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--       repair_history, operation_ids, audit
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
--       4  the mark's time (Unix seconds)
--       5  the same (ISO 8601)
--       6  seconds that the mark holds from now on
--       7  what was done
--       8  who says so; '' for nobody
--       9  the entry of the audit (JSON)
-- Gives {'marked'}, also where nothing has changed since this id was known or something later has been
--       done; or {'unknown'}, or {"error" and a message}
--
-- A script and not MULTI: a mark on an unknown anomaly is refused, and the metadata must not
-- expire before it.

local kept_seconds, now, id, at, at_iso, validity_seconds, description, fixed_by, entry = unpack(ARGV)

local function mark()
  if not is_known(1) then
    return 'unknown'
  end
  if is_noted(1, id, now, kept_seconds) then
    return 'marked'
  end
  if is_outdated(1, at, now) then
    remember_id(1, id, now, kept_seconds)
    return 'marked'
  end
  -- Before anything is written, so that an audit of a foreign type changes nothing.
  call('LLEN', KEYS[1 + AUDIT])
  local metadata = KEYS[1 + METADATA]
  call('HSET', metadata, 'permanent_fix_applied', 'true', 'permanent_fix_description', description,
    'permanent_fix_time', at_iso, 'permanent_fix_changed', at)
  if fixed_by == '' then
    call('HDEL', metadata, 'permanent_fix_by')
  else
    call('HSET', metadata, 'permanent_fix_by', fixed_by)
  end
  extend_ttl(metadata, validity_seconds)
  call('SET', KEYS[1 + PERMANENT_FIX], '1', 'EX', validity_seconds)
  audit(1, entry)
  remember_id(1, id, now, kept_seconds)
  return 'marked'
end

elements(10, 9, 0)
return { protected(mark) }

-- Takes the permanent fix of a known anomaly back.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--       repair_history, operation_ids, audit
-- ARGV  1  seconds to keep an id
--       2  now (Unix seconds)
--       3  event id
--       4  the removal's time (Unix seconds)
--       5  the entry of the audit (JSON)
-- Gives {'unmarked'}, {'not_marked'} (also where nothing has changed since this id was known or
--       something later has been done), {'unknown'}, or {"error" and a message}
--
-- A script and not MULTI: an unknown anomaly is told from one that has no mark.

local kept_seconds, now, id, at, entry = unpack(ARGV)

local function unmark()
  if not is_known(1) then
    return 'unknown'
  end
  if is_noted(1, id, now, kept_seconds) then
    return 'not_marked'
  end
  if is_outdated(1, at, now) then
    remember_id(1, id, now, kept_seconds)
    return 'not_marked'
  end
  -- Before anything is written, so that an audit of a foreign type changes nothing.
  call('LLEN', KEYS[1 + AUDIT])
  local metadata = KEYS[1 + METADATA]
  local mark = call('GET', KEYS[1 + PERMANENT_FIX])
  call('DEL', KEYS[1 + PERMANENT_FIX])
  call('HDEL', metadata, 'permanent_fix_applied', 'permanent_fix_description', 'permanent_fix_time',
    'permanent_fix_by')
  if call('EXISTS', metadata) == 1 then
    call('HSET', metadata, 'permanent_fix_changed', at)
  end
  if mark == '1' then
    audit(1, entry)
  end
  remember_id(1, id, now, kept_seconds)
  return mark == '1' and 'unmarked' or 'not_marked'
end

elements(10, 5, 0)
return { protected(unmark) }

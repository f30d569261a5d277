-- Marks a known anomaly as permanently fixed, in place of an earlier mark.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit
-- ARGV     1-10  as `change_fix` in library.lua takes them
--          11    the mark's time (ISO 8601)
--          12    seconds for which the mark holds from now on
--          13    the description of the fix
--          14    who reports it; '' if unknown
-- Returns  {"marked"}, even if nothing has changed because the id is known or the mark has waited
--          and a later change was made; {"later" and its time}; {"unknown"}; or {"error" and a
--          message}
--
-- A script and not MULTI: a mark on an unknown anomaly is refused, and the metadata must not expire
-- before the mark.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 10, 14, 0

local at_iso, validity_seconds, description, fixed_by = ARGV[11], ARGV[12], ARGV[13], ARGV[14]

local function mark(metadata, changed_at)
  call('HSET', metadata, 'permanent_fix_applied', 'true', 'permanent_fix_description', description,
    'permanent_fix_time', at_iso, 'permanent_fix_changed', changed_at)
  if fixed_by == '' then
    call('HDEL', metadata, 'permanent_fix_by')
  else
    call('HSET', metadata, 'permanent_fix_by', fixed_by)
  end
  extend_ttl(metadata, validity_seconds)
  call('SET', KEYS[1 + PERMANENT_FIX], '1', 'EX', validity_seconds)
  return true
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return { protected(change_fix, mark, 'marked', 'marked') }
end)

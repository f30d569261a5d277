-- Removes the mark of a permanent fix from a known anomaly.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit
-- ARGV     1-10  as `change_fix` in library.lua takes them
-- Returns  {"unmarked"}; {"not_marked"}, even if nothing has changed because the id is known or the
--          removal has waited and a later change was made; {"later" and its time}; {"unknown"}; or
--          {"error" and a message}
--
-- A script and not MULTI: an unknown anomaly must be distinguished from one without a mark.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 10, 10, 0

local function unmark(metadata, changed_at)
  local mark = call('GET', KEYS[1 + PERMANENT_FIX])
  call('DEL', KEYS[1 + PERMANENT_FIX])
  call('HDEL', metadata, 'permanent_fix_applied', 'permanent_fix_description', 'permanent_fix_time',
    'permanent_fix_by')
  if call('EXISTS', metadata) == 1 then
    call('HSET', metadata, 'permanent_fix_changed', changed_at)
  end
  return mark == '1'
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return { protected(change_fix, unmark, 'unmarked', 'not_marked') }
end)

-- Forgets one anomaly.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit, incidents
-- ARGV     none
-- Returns  {"forgotten"}, {"unknown"}, or {"error" and a message}
--
-- A script and not DEL: whether the anomaly was known is read at the same moment, and the remaining
-- keys of an unknown anomaly are removed too.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 11, 0, 0

local function forget()
  local was_known = is_known(1)
  call('DEL', unpack(KEYS))
  return was_known and 'forgotten' or 'unknown'
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return { protected(forget) }
end)

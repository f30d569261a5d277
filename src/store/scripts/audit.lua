-- Reads the audit of one anomaly: who changed it, how, and when.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit
-- ARGV     none
-- Returns  {"known", {entries, newest first}}, {"unknown"}, or {"error" and a message}
--
-- A script and not single commands: an unknown anomaly must be distinguished from one with an empty
-- audit.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 10, 0, 0

local function read()
  if not is_known(1) then
    return { 'unknown' }
  end
  return { 'known', call('LRANGE', KEYS[1 + AUDIT], '0', '-1') }
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return protected_list(read)
end)

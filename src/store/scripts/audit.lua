-- Reads who has done what about an anomaly.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--       repair_history, operation_ids, audit
-- ARGV  none
-- Gives {'known', {entries, newest first}} or {'unknown'}, or {"error" and a message}
--
-- A script and not single commands: an unknown anomaly is told from one that nobody has done anything about.

local function read()
  if not is_known(1) then
    return { 'unknown' }
  end
  return { 'known', call('LRANGE', KEYS[1 + AUDIT], '0', '-1') }
end

elements(10, 0, 0)
local result = protected(read)
return type(result) == 'table' and result or { result }

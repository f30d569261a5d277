-- Reads everything that is kept about one anomaly.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata, folded, folded_counts, folded_ids,
--          repair_history, operation_ids, audit, incidents
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          5    maximum number of repair attempts to return
--          6    the windows of its rule (`rule_windows` in library.lua)
--          7    now (Unix microseconds)
--          8    microseconds without a delivery after which an alert has ended
-- Returns  {"known" and the stats (`encode_stats` in library.lua), signature, first_seen, fix
--          description, fixed by, alerts that fire (`firing_of` in incidents.lua), {repair history,
--          newest first}}, where '' stands for a missing value; {"unknown"}; or {"error" and a
--          message}
--
-- A script and not single commands: all figures of an answer are from the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 11, 8, 0

policy.stale_after = tonumber(ARGV[8])

local function read()
  if not is_known(1) then
    return { 'unknown' }
  end
  local text = known_stats(1, window_starts(), read_texts(1, KEYS_EACH), 1, ARGV[6])
  local texts = read_if_readable('HMGET', KEYS[1 + METADATA], 'signature', 'first_seen',
    'permanent_fix_description', 'permanent_fix_by') or {}
  local history = call('LRANGE', KEYS[1 + REPAIR_HISTORY], '0', ARGV[5] - 1)
  return { text, texts[1] or '', texts[2] or '', texts[3] or '', texts[4] or '',
    firing_of(1, tonumber(ARGV[7])), history }
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return protected_list(read)
end)

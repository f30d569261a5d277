-- Reads the stats, the signatures and the firing alerts of anomalies without changing anything.
--
-- KEYS     for each anomaly: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history, operation_ids, audit, incidents
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          5    now (Unix microseconds)
--          6    microseconds without a delivery after which an alert has ended
--          then for each anomaly the windows of its rule (`rule_windows` in library.lua)
-- Returns  for each anomaly {"known" and its stats (`encode_stats` in library.lua), signature,
--          alerts that fire (`firing_of` in incidents.lua)}, where '' stands for a missing value;
--          "unknown", or "error" and a message
--
-- A script and not single commands: all figures of an anomaly are from the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 11, 6, 1

local starts = window_starts()
local now = tonumber(ARGV[5])

policy.stale_after = tonumber(ARGV[6])

local function read(k, texts, i)
  local text = known_stats(k, starts, texts, i, ARGV[FIXED_ARGUMENTS + i])
  if not text then
    return 'unknown'
  end
  local signature = read_if_readable('HGET', KEYS[k + METADATA], 'signature')
  return { text, signature or '', firing_of(k, now) }
end

return run(function()
  return read_each(elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH), KEYS_EACH, read)
end)

-- Reads the stats, the signatures and the firing alerts of anomalies without changing anything.
--
-- KEYS     for each anomaly: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history, operation_ids, audit, incidents
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          5    now (Unix microseconds)
--          6    microseconds after which an alert that was not heard of has ended
--          then for each anomaly the windows of its rule (`rule_windows` in library.lua)
-- Returns  for each anomaly {"known" and its stats (`encode_stats` in library.lua), signature,
--          alerts that fire (`firing_of` in incidents.lua)}, where '' stands for a missing value;
--          "unknown", or "error" and a message
--
-- A script and not single commands: all figures of an anomaly are of the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 11, 6, 1

local starts = window_starts()
local now = tonumber(ARGV[5])
local texts

policy.stale_after = tonumber(ARGV[6])

local function read(i)
  local k = (i - 1) * KEYS_EACH + 1
  local stats = read_stats(k, starts, nil, texts, i)
  if stats[1] == 0 and not is_known(k) then
    return 'unknown'
  end
  stats.newest = stats[1] > 0 and newest_event(k, stats)
  local text = encode_stats(k, 'known', stats, rule_windows(ARGV[FIXED_ARGUMENTS + i]))
  local signature = read_if_readable('HGET', KEYS[k + METADATA], 'signature')
  return { text, signature or '', firing_of(k, now) }
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  texts = read_texts(count, KEYS_EACH)
  local results = {}
  for i = 1, count do
    results[i] = protected(read, i)
  end
  return results
end)

-- Reads the stats of anomalies without changing anything.
--
-- KEYS     for each anomaly: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          then for each anomaly the windows of its rule (`rule_windows` in library.lua)
-- Returns  for each anomaly a text: "known" and its stats (`encode_stats` in library.lua),
--          "unknown", or "error" and a message
--
-- A script and not single commands: all figures of an answer are of the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 8, 4, 1

local starts = window_starts()
local texts

local function read(i)
  local k = (i - 1) * KEYS_EACH + 1
  local stats = read_stats(k, starts, nil, texts, i)
  if stats[1] == 0 and not is_known(k) then
    return 'unknown'
  end
  stats.newest = stats[1] > 0 and newest_event(k, stats)
  return encode_stats(k, 'known', stats, rule_windows(ARGV[FIXED_ARGUMENTS + i]))
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

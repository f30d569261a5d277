-- Reads the stats of anomalies without changing anything.
--
-- KEYS     for each anomaly: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          then for each anomaly the windows of its rule (`rule_windows` in library.lua)
-- Returns  for each anomaly a text: "known" and its stats (`encode_stats` in library.lua) and,
--          where no event is older than 30 days or rolled up, a line feed and the id of the oldest
--          event; "unknown"; or "error" and a message
--
-- A script and not single commands: all figures of an answer are from the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 8, 4, 1

local starts = window_starts()

local function read(k, texts, i)
  local text, stats = known_stats(k, starts, texts, i, ARGV[FIXED_ARGUMENTS + i])
  if text and stats.oldest_id and not stats.has_more then
    return text .. '\n' .. stats.oldest_id
  end
  return text or 'unknown'
end

return run(function()
  return read_each(elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH), KEYS_EACH, read)
end)

-- Reads the stats of anomalies of which the caller knows the oldest event, without changing
-- anything: what stats.lua does, where nothing else is to be read.
--
-- KEYS     as in known.lua
-- ARGV     as in known.lua
-- Returns  for each anomaly a text as stats.lua does, with `-` for the oldest event; "more" if
--          stats.lua has to do it
--
-- A script and not single commands: all figures of an answer are of the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 5, 4, 3

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  local texts, results = read_texts(count), {}
  local t, k, a = 1, count * TEXTS_EACH + 1, FIXED_ARGUMENTS + 1
  for i = 1, count do
    local length, rest = read_known(t, k, texts, ARGV[a], ARGV[a + 1], false)
    results[i] = length and 'known ' .. count_windows(KEYS[k], length, ARGV[a + 2]) .. ' - '
      .. newest_time(KEYS[k]) .. rest or 'more'
    t, k, a = t + TEXTS_EACH, k + OTHERS_EACH, a + ARGUMENTS_EACH
  end
  return results
end)

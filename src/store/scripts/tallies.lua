-- Tallies anomalies without changing anything.
--
-- KEYS  for each anomaly: timeline, repair_count, permanent_fix, metadata, repair_history
-- ARGV  1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
-- Gives for each anomaly: {'known', tally...} or {'unknown'} or {'error', message}
--
-- A script and not single commands: all figures of an answer are of the same moment.

local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }

local function read(names)
  local result = tally(names, starts)
  if result[1] == 0 and not is_known(names) then
    return { 'unknown' }
  end
  return { 'known', unpack(result) }
end

local results = {}
local cursor = { at = 1 }
for i = 1, #KEYS / 5 do
  local names = {}
  names.timeline, names.repair_count, names.permanent_fix, names.metadata, names.repair_history =
    take(KEYS, cursor, 5)
  results[i] = guarded(read, names)
end
return results
